"""Explanation and measurement of one shard, without Ray."""
