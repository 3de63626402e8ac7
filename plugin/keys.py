"""How every key, tag, scope, split and folder is spelled, and how a key is read back.

MLflow allows word characters, space and ``/ - . :`` in a key of up to 250 characters; a slash
divides sections in both trackers, so that a key holds exactly one. Text from users is made legal
injectively: where characters were lost, four hex digits of a digest of the original are appended.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

LONGEST = 70
"""Characters of a user's text; three of them and the fixed words stay below MLflow's 250."""

FACT = "boxscore."
"""Prefix of the run's tags, as in ``boxscore.group``."""

_BY_GROUP = ("loss", "native")
_BY_SET = ("metric", "per class", "pictures", "curves")
_ILLEGAL = re.compile(r"[^\w\- .]")
_MARKED = re.compile(r" [0-9a-f]{4}$")
_WORD_MARKED = re.compile(r"-[0-9a-f]{4}$")
_DIGEST = re.compile(r"[0-9a-f]{12}")
_SPLIT = r"train|test(?:-[^./]+)?"
_RESERVED = re.compile(r"(^|-)(train|test)(-|$)|[.]")
_LOSS = re.compile(rf"(?P<kind>loss|native) (?P<group>[^/]+)/(?P<measure>.+)\.(?P<split>{_SPLIT})")
_METRIC = re.compile(
    rf"(?P<kind>metric|per class) (?P<dataset>[^/]+)-(?P<split>{_SPLIT}) (?P<fingerprint>[^ /]+)"
    r"/(?P<measure>[^ ]+)(?: (?P<class_name>.+))?"
)
_PICTURE = re.compile(
    rf"(?P<kind>pictures|curves) (?P<dataset>[^/]+)-(?P<split>{_SPLIT}) (?P<fingerprint>[^ /]+)"
    r"/(?P<measure>.+)"
)
_PLAIN = re.compile(r"(?P<kind>progress|summary)/(?P<measure>.+)")


def legal(text: str) -> str:
    """``text`` as a piece of a name that MLflow, TensorBoard and a folder accept.

    >>> legal("red blood cell")
    'red blood cell'
    >>> legal("a/b") != legal("a b") != legal("a|b")
    True
    """
    clean = " ".join(_ILLEGAL.sub(" ", text).split()).strip(". ")
    clean = re.sub(r"\.{2,}", ".", clean)
    # a text that ends like a mark is marked too: it could equal another's marked form
    if clean == text and len(text) <= LONGEST and clean and not _MARKED.search(text):
        return clean
    return f"{clean[: LONGEST - 5].rstrip('. ')} {_mark(text)}".strip()


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:4]


def originals(texts: Iterable[str]) -> dict[str, str]:
    """Tags that keep the ``texts`` that are not legal as they stand."""
    return {f"{FACT}original.{legal(text)}": text for text in texts if legal(text) != text}


def further_split(name: str) -> str:
    """The split of a further test set.

    >>> further_split("night")
    'test-night'
    """
    clean = legal(name)
    if _RESERVED.search(clean):  # or a key could be read back in two ways
        clean = f"{re.sub('[.-]', '_', clean)[: LONGEST - 5]} {_mark(name)}"
    return f"test-{clean}"


def splits(loaders: Any) -> dict[str, Any]:
    """Loaders by split: one is ``test``; of a mapping, all but ``test`` are ``test-<name>``.

    >>> splits({"test": [], "night": []})
    {'test': [], 'test-night': []}
    """
    if loaders is None:
        return {}
    if not isinstance(loaders, Mapping):
        return {"test": loaders}
    return {"test" if n == "test" else further_split(n): loader for n, loader in loaders.items()}


def word(text: str) -> str:
    """A user's fingerprint as one legal word; a gathered one stays as it is.

    >>> word("night_v1"), word("v2 final"), word("7f3a2c0b11d4")
    ('night_v1', 'v2_final-7241', '7f3a2c0b11d4')
    """
    clean = legal(text).replace(" ", "_")
    if clean == text and not _WORD_MARKED.search(text):
        return clean
    return f"{clean[: LONGEST - 5]}-{_mark(text)}"


def short(fingerprint: str) -> str:
    """A fingerprint as keys show it: six of its twelve hex digits, or the user's `word`."""
    return fingerprint[:6] if _DIGEST.fullmatch(fingerprint) else fingerprint


def folder(dataset: str, algorithm: str, input_size: str, backbone: str, run_id: str) -> str:
    """A run's TensorBoard folder: ``<dataset>/<algorithm>/<HxW>/<backbone>-<short id>``."""
    parts = (legal(dataset), legal(algorithm), input_size, legal(backbone or "model"))
    return f"{'/'.join(parts)}-{run_id[:8]}"


def loss_scope(group: str, *, native: bool = False) -> str:
    """``"loss RetinaNet 640x640"``: losses compare within a group."""
    return f"{'native' if native else 'loss'} {group}"


def evaluated_set(dataset: str, split: str, fingerprint: str) -> str:
    """``"bccd-test 7f3a2c"``: with which metrics compare."""
    return f"{legal(dataset)}-{split} {short(fingerprint)}"


def metric_scope(dataset: str, split: str, fingerprint: str, *, per_class: bool = False) -> str:
    """``"metric bccd-test 7f3a2c"``: metrics compare within an evaluated set."""
    kind = "per class" if per_class else "metric"
    return f"{kind} {evaluated_set(dataset, split, fingerprint)}"


def pictures_scope(dataset: str, split: str, fingerprint: str) -> str:
    """``"pictures bccd-test 7f3a2c"``: an image of an evaluated set has one key in every run."""
    return f"pictures {evaluated_set(dataset, split, fingerprint)}"


def picture_name(scope: str, image_id: str) -> str:
    """The name of the file with a picture of an image.

    >>> picture_name("pictures bccd-test 7f3a2c", "17")
    'pictures bccd-test 7f3a2c/17.webp'
    """
    return f"{tag(scope, legal(image_id))}.webp"


def curves_tag(evaluated_set: str) -> str:
    """TensorBoard's tag of what the tab shows, ``"curves bccd-test 7f3a2c/all"``."""
    return tag(f"curves {evaluated_set}", "all")


def pr_tag(evaluated_set: str, class_name: str) -> str:
    """TensorBoard's tag of a curve on its own tab, of all classes together without a name.

    >>> pr_tag("bccd-test 7f3a2c", "RBC")
    'PR bccd-test 7f3a2c/class RBC'
    """
    return tag(f"PR {evaluated_set}", f"class {legal(class_name)}" if class_name else "all")


def table_name(kind: str, split: str) -> str:
    """The name of the file with a table of an evaluation, ``"curves/test.json"``."""
    return f"{kind}/{split}.json"


def class_measure(measure: str, class_name: str) -> str:
    """A measure of one class, ``"box_AP RBC"``."""
    return f"{measure} {legal(class_name)}"


def progress(name: str) -> str:
    """``"progress/epoch"``."""
    return f"progress/{name}"


def summary(name: str) -> str:
    """``"summary/box_AP"``, ``"summary/best_box_AP"``."""
    return f"summary/{name}"


def tag(scope: str, name: str) -> str:
    """The name inside one split's folder, for TensorBoard."""
    return f"{scope}/{name}" if scope else name


def key(scope: str, name: str, split: str) -> str:
    """The name that is unique within a run, for MLflow; losses have a split each."""
    ends = scope.partition(" ")[0] in _BY_GROUP
    return f"{tag(scope, name)}.{split}" if ends else tag(scope, name)


def key_of_tag(spelled: str, split: str) -> str:
    """The key of a TensorBoard tag in the folder of ``split``."""
    scope, slash, name = spelled.partition("/")
    return key(scope, name, split) if slash else spelled


@dataclass(frozen=True, slots=True)
class Key:
    """A key in its parts; those that its kind lacks are empty.

    Attributes:
        kind: ``loss``, ``native``, ``metric``, ``per class``, ``pictures``, ``curves``,
            ``progress`` or ``summary``.
        measure: the catalogue's name, or a framework's own; of pictures the image's.
        group: parent algorithm and input size, of losses.
        dataset: the data's name, of metrics.
        split: ``"train"``, ``"test"`` or ``"test-<name>"``, of losses and metrics.
        fingerprint: as keys show it, of metrics.
        class_name: of metrics per class.
    """

    kind: str
    measure: str
    group: str = ""
    dataset: str = ""
    split: str = ""
    fingerprint: str = ""
    class_name: str = ""

    @property
    def scope(self) -> str:
        """With whom the value may be compared: ``"loss RetinaNet 640x640"``."""
        if self.kind in _BY_GROUP:
            return f"{self.kind} {self.group}"
        if self.kind in _BY_SET:
            return f"{self.kind} {self.evaluated_set}"
        return self.kind

    @property
    def evaluated_set(self) -> str:
        """With which metrics compare: ``"bccd-test 7f3a2c"``."""
        return f"{self.dataset}-{self.split} {self.fingerprint}"


def spell(parts: Key) -> str:
    """The key of ``parts``, whose texts are legal; `parse` reads it back.

    >>> spell(Key("loss", "classification", group="RetinaNet 640x640", split="test"))
    'loss RetinaNet 640x640/classification.test'
    """
    name = f"{parts.measure} {parts.class_name}" if parts.class_name else parts.measure
    return key(parts.scope, name, parts.split)


def parse(spelled: str) -> Key:
    """A key in its parts.

    Raises:
        ValueError: if it is no key of boxscore's.

    >>> parse("per class bccd-test 7f3a2c/box_AP RBC").class_name
    'RBC'
    """
    if match := _LOSS.fullmatch(spelled) or _METRIC.fullmatch(spelled):
        parts = match.groupdict(default="")
        if (parts["kind"] == "per class") == bool(parts.get("class_name")):
            return Key(**parts)
    elif match := _PICTURE.fullmatch(spelled) or _PLAIN.fullmatch(spelled):
        return Key(**match.groupdict())
    raise ValueError(f"{spelled!r} is no key that boxscore spells")
