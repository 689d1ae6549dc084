"""Our methods beside other people's programs, where these do the same."""
