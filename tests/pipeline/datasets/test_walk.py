"""Links of a folder: those that stay inside are followed, those that lead out are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.datasets import Sample
from pipeline.datasets.images import UnreadableError, read_image
from tests.support.listings import classes, line, listed, save
from tests.support.plans import refused


def test_a_link_to_a_folder_inside_is_followed_and_images_listed_twice_are_a_remark(tmp_path: Path) -> None:
    save(tmp_path, "cat/1.jpg", "store/2.jpg", "store/deep/3.jpg")
    (tmp_path / "bird").symlink_to("store")
    samples = listed(tmp_path)
    assert set(classes(samples)) == {"bird/2.jpg", "bird/deep/3.jpg", "cat/1.jpg", "store/2.jpg", "store/deep/3.jpg"}
    assert {sample.class_name for sample in samples} == {"bird", "cat", "store"}
    assert line(samples) == ("dataset: images listed twice, once through a link to a folder of the dataset: 2 (bird -> store)")
    for sample in samples:
        assert read_image(sample, {}).size == (24, 20)


def test_a_link_to_a_hidden_folder_inside_is_followed_and_doubles_nothing(tmp_path: Path) -> None:
    save(tmp_path, ".store/one/1.jpg", "cat/2.jpg")
    (tmp_path / "dog").symlink_to(tmp_path / ".store" / "one")
    samples = listed(tmp_path)
    assert classes(samples) == {"cat/2.jpg": (None, "cat"), "dog/1.jpg": (None, "dog")}
    assert line(samples) == "dataset: files and folders left out: 1 hidden (.store)"


@pytest.mark.parametrize("link", ["dog", "animals/dog", "dog-2019"])
def test_a_link_to_a_folder_outside_is_refused_by_name(tmp_path: Path, link: str) -> None:
    root = save(tmp_path / "root", "cat/1.jpg")
    save(tmp_path / "elsewhere", "2.jpg")
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(tmp_path / "elsewhere")
    message = refused(lambda: listed(root))
    assert f"the folder {link} is a link to {tmp_path}/elsewhere, which leads out of the dataset's root" in message
    (root / "more").symlink_to("../elsewhere")
    assert "leads out of the dataset's root (2 such links in all)" in refused(lambda: listed(root))


def test_links_obey_the_rule_with_which_images_are_read(tmp_path: Path) -> None:
    """A link to a file outside has a row that is unreadable; one through a link to a folder outside would be, too."""
    root = save(tmp_path / "root", "cat/1.jpg")
    outside = save(tmp_path / "elsewhere", "2.jpg")
    (root / "cat" / "2.jpg").symlink_to(outside / "2.jpg")
    samples = {sample.image_id: sample for sample in listed(root)}
    with pytest.raises(UnreadableError, match="leads out of the dataset's root"):
        read_image(samples["cat/2.jpg"], {})
    (root / "dog").symlink_to(outside)
    with pytest.raises(UnreadableError, match="leads out of the dataset's root"):
        read_image(Sample("dog/2.jpg", str(root / "dog/2.jpg"), root=str(root)), {})
    (tmp_path / "root-2").mkdir()  # a name that begins with the root's is no folder inside
    (root / "dog").unlink()
    (root / "dog").symlink_to("../root-2")
    assert "leads out" in refused(lambda: listed(root))


def test_a_root_that_is_a_link_may_hold_links_to_its_own_folders(tmp_path: Path) -> None:
    save(tmp_path / "data", ".store/1.jpg")
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "data" / ".store")
    (tmp_path / "root").symlink_to("data")
    (sample,) = listed(tmp_path / "root")
    assert sample.image_id == "cat/1.jpg"
    assert read_image(sample, {}).size == (24, 20)


def test_links_that_lead_in_circles_end(tmp_path: Path) -> None:
    save(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "self").symlink_to(".")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "other").symlink_to("../b")
    (tmp_path / "b" / "other").symlink_to("../a")
    samples = listed(tmp_path)
    assert {"a/1.jpg", "b/2.jpg", "a/other/2.jpg", "b/other/1.jpg"} == {sample.image_id for sample in samples}
    left_out, doubled = samples.notes.lines()
    assert "behind links back to a folder that holds them (a/other/other, a/self, a/up, ...)" in left_out
    assert "images listed twice, once through a link to a folder of the dataset: 2 (" in doubled


def test_a_tower_of_links_that_would_double_a_million_times_ends(tmp_path: Path) -> None:
    for level in range(30):
        (tmp_path / f".{level}").mkdir()
        for side in "lr":
            (tmp_path / f".{level}" / side).symlink_to(f"../.{level + 1}")
    save(tmp_path, ".30/x.jpg", "a.jpg")
    (tmp_path / "top").symlink_to(".0")
    samples = listed(tmp_path)
    assert [sample.image_id for sample in samples] == ["a.jpg"]
    assert "behind links back to a folder that holds them" in samples.notes.left_out_text()


def test_a_link_to_nothing_is_counted_where_it_may_have_been_a_class(tmp_path: Path) -> None:
    save(tmp_path, "a/1.jpg")
    (tmp_path / "dog").symlink_to("/mnt/not-mounted/dog")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dead.png").symlink_to("nowhere.png")
    samples = listed(tmp_path)
    assert [sample.image_id for sample in samples] == ["a/1.jpg", "dead.png"]
    assert samples.notes.lines()[0] == "dataset: files and folders left out: 2 behind links to nothing (dog, loop)"
