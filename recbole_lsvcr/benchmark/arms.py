"""The arms of a benchmark: the models of each task with their settings, and the presets of the paper's studies.

An arm is one row of a table. `main` arms are LSVCR, its baselines and the rules; the groups `ablation` (Table 4 of
arXiv 2403.13574), `alignment-steps` (Figure 3) and `cold` (Figure 4) are made of changes of LSVCR.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from recbole.utils import get_model

from dataset_tools.files import sha256_file
from recbole_lsvcr.alignment.config import load_alignment_config
from recbole_lsvcr.alignment.identity import files as alignment_files
from recbole_lsvcr.benchmark.names import resolve
from recbole_lsvcr.benchmark.settings import refuse_common
from recbole_lsvcr.benchmark.sizes import size_parameters
from recbole_lsvcr.benchmark.vocabulary import ABLATION, COLD, MAIN, STEPS, Group, Role
from recbole_lsvcr.config import MODEL_OF, SHARED, check_keys, check_model, known_keys
from recbole_lsvcr.custom_models import PATH_KEY, source_files
from recbole_lsvcr.data.cache import fingerprint_of
from recbole_lsvcr.data.dataset import task_of
from recbole_lsvcr.encoding.encoders import content_of
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.registry import CUSTOM, properties_dir
from recbole_lsvcr.yaml_files import read_yaml

DEFAULT_SIZE = 64  # of a video's vector, for every model (section 4.1.4)


@dataclass(frozen=True)
class Arm:
    """A model with its settings under a name.

    Attributes:
        name: as shown. model: RecBole's class name. setting: tells arms of one model apart in file names.
        parameters: every setting but the seed and what tuning chooses.
        fixed: those of them that make it the arm it is, which tuning leaves as they are.
        chosen_with: the setting of the arm whose tuned parameters this one takes; None: it is tuned itself.
    """

    name: str
    model: str
    task: str
    role: Role
    setting: str = MAIN
    group: Group = MAIN
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    fixed: frozenset[str] = frozenset()
    chosen_with: str | None = None

    @property
    def learns(self) -> bool:
        """Whether there is anything to train: rules have one cell, whatever the seeds, and no trials."""
        return bool(getattr(get_model(self.model), "learns", True))

    @property
    def source(self) -> str | None:
        """Hash of what its settings name and do not tell: changed, it makes other cells. That is a model of the user's
        own, an alignment given as a file, a language model or text encoder in a folder, and what `auto` stands for
        here; None: there is none."""
        alignment = self.parameters.get("alignment") if self.aligns else None
        own = source_files(self.model) if self.model in CUSTOM else []
        own += alignment_files(alignment) if alignment else []
        models = self._text_models(alignment)
        found = [(file.name, sha256_file(file)) for file in own]
        found += [(name, content) for name in models if (content := content_of(name)) is not None]
        return fingerprint_of(found)[:12] if found else None

    def _text_models(self, alignment: Any) -> list[str]:
        """What it reads text with."""
        if alignment:
            return [load_alignment_config(alignment).llm]
        hard = self.parameters.get("train_negatives") == "hard"  # are found by their text
        if not hard and not getattr(get_model(self.model), "reads_text", False):
            return []
        default = read_yaml(properties_dir() / "overall.yaml")["text_encoder"]
        return [self.parameters.get("text_encoder", default)]

    @property
    def aligns(self) -> bool:
        """Whether the model can start from an alignment."""
        return bool(getattr(get_model(self.model), "aligns", False))


@dataclass(frozen=True)
class Entry:
    """A line of the catalogue: how `--benchmark` and the table name an arm, and how it differs from its model's
    defaults."""

    name: str
    model: str
    role: Role = "baseline"
    setting: str = MAIN
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def is_called(self, name: str) -> bool:
        """Whether a person means this line by the name: its own, its model's, or that without `Comment`."""
        return name.lower() in (self.name.lower(), self.model.lower(), self.model.lower().removeprefix("comment"))


# What `--benchmark` alone computes, in the order of the tables.
CATALOGUE: Mapping[str, tuple[Entry, ...]] = {
    "video": (
        Entry("Popularity", "Popularity", "rule"),
        Entry("Newest", "Newest", "rule"),
        Entry("TextSim", "TextSim", "rule"),
        *(Entry(name, name) for name in ("Caser", "GRU4Rec", "BERT4Rec", "SASRec", "NARM", "DMT", "MBHT")),
        *(Entry(name, name) for name in ("FDSA", "S3Rec", "SASRecText")),
        Entry("UniSRec", "UniSRec", setting="inductive", parameters={"transductive": False}),
        Entry("UniSRec-transductive", "UniSRec", setting="transductive", parameters={"transductive": True}),
        Entry("LSVCR", "LSVCR", "ours"),
    ),
    "comment": (
        Entry("CommentPop", "CommentPop", "rule"),
        Entry("CommentNewest", "CommentNewest", "rule"),
        Entry("CommentTextSim", "CommentTextSim", "rule"),
        *(Entry(f"Comment{name}", f"Comment{name}") for name in ("DSSM", "GRU", "ATT", "MHA", "ZAM", "TEM")),
        Entry("FM", "FM"),
        Entry("LSVCRComment", "LSVCRComment", "ours"),
    ),
}
NO_ALIGNMENT = "no-alignment"
ABLATIONS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (  # name, setting, changes: those of `alignment` apart
    ("w/o SSC", "no-ssc", {"alignment": {"ssc": False}}),
    ("w/o VCC", "no-vcc", {"alignment": {"vcc": False}}),
    (
        "w/o comment diversification",
        "no-diversification",
        {"alignment": {"diversify_videos": False, "diversify_records": False}},
    ),
    ("w/o random positions", "no-random-positions", {"alignment": {"random_positions": False}}),
    ("w/o alignment", NO_ALIGNMENT, {"alignment": False}),
    ("w/o REG", "no-reg", {"id_text_weight": 0}),
)
COLD_BASELINE = {"video": "UniSRec", "comment": "CommentMHA"}  # Figure 4
ENTRY_KEYS = ("name", "model")
# What the YAML of a user's own model does not decide here: LSVCR's values hold for it as for RecBole's models and ours.
EQUAL = (*(key for key in SHARED if key not in ("eval_batch_size", "learning_rate", "load_col")), "sample_num")
# Keys that only one of the tasks reads; a cell of the other task does not change with them.
OF_VIDEOS = ("protocols", "valid_protocol")
OF_COMMENTS = (
    "comment_protocols",
    "comment_valid_protocol",
    "comment_list_limit",
    "train_negatives",
    "train_negative_num",
)


class Catalogue:
    """The arms that a benchmark's configuration asks for.

    Args:
        given: the user's configuration, without the benchmark's own keys.
        model_settings: further settings by model.
        tasks: "video", "comment".
    """

    def __init__(
        self, given: Mapping[str, Any], model_settings: Mapping[str, Mapping[str, Any]], tasks: Sequence[str]
    ) -> None:
        self.given, self.model_settings, self.tasks = given, model_settings, tasks

    def main(self, names: Sequence[str | Mapping[str, Any]] | None) -> list[Arm]:
        """The main arms in the order of the catalogue, ours always among them and last. None: all.

        Raises:
            ConfigError: a name that is no model, of no task asked for, or twice.
        """
        entries = {task: list(CATALOGUE[task]) if names is None else [] for task in self.tasks}
        for name in names or []:
            task, found = self._entries(name)
            entries[task] += [entry for entry in found if entry not in entries[task]]
        arms = []
        for task in self.tasks:
            ours = next(entry for entry in CATALOGUE[task] if entry.role == "ours")
            others = [entry for entry in entries[task] if entry != ours]
            arms += [self._arm(entry, task) for entry in (*_in_order(others, task), ours)]
        for task in self.tasks:
            shown = [arm.name for arm in arms if arm.task == task]
            if twice := sorted({name for name in shown if shown.count(name) > 1}):
                raise ConfigError(f"benchmark: {', '.join(twice)} is there twice; give each arm a name of its own")
        return arms

    def _entries(self, wanted: str | Mapping[str, Any]) -> tuple[str, list[Entry]]:
        """The lines of the catalogue that a name means, and their task."""
        if isinstance(wanted, Mapping):
            return self._own_arm(wanted)
        for task in self.tasks:
            known = [entry for entry in CATALOGUE[task] if entry.is_called(wanted)]
            if known:
                exact = [entry for entry in known if wanted == entry.name]
                return task, exact if exact and wanted != "UniSRec" else known
        model, task = self._model(wanted)
        return task, [Entry(model, model)]

    def _own_arm(self, wanted: Mapping[str, Any]) -> tuple[str, list[Entry]]:
        """An arm as the configuration writes it: a name, a model, and settings."""
        if not all(isinstance(wanted.get(key), str) for key in ENTRY_KEYS):
            raise ConfigError(
                f"benchmark: {dict(wanted)!r} is not an arm; give a model's name, or a mapping of name, model and any "
                "settings, such as {name: UniSRec-seen, model: UniSRec, train_candidates: seen}"
            )
        model, task = self._model(wanted["model"])
        settings = {key: value for key, value in wanted.items() if key not in ENTRY_KEYS}
        setting = "".join(c if c.isalnum() or c in "-_" else "-" for c in wanted["name"].lower())
        refuse_common(f"benchmark: {wanted['name']}", settings)
        check_keys(settings, known_keys([model]))
        return task, [Entry(wanted["name"], model, setting=setting, parameters=settings)]

    def _model(self, name: str) -> tuple[str, str]:
        """The class name of a model of RecBole's, of ours or of the user's own, and its task."""
        model = resolve(name, [entry.name for task in self.tasks for entry in CATALOGUE[task]])
        check_model(model, None)
        task = task_of(get_model(model))
        if task not in self.tasks:
            raise ConfigError(
                f"benchmark: {name} ranks {task}s, but the task is {' and '.join(self.tasks)}; leave it out, or give "
                f"--task {task} or both"
            )
        return model, task

    def _arm(self, entry: Entry, task: str) -> Arm:
        settings = self._settings(entry.model)
        if (fixed := settings.keys() & entry.parameters) and entry in CATALOGUE[task]:
            names = [e.name for e in CATALOGUE[task] if e.model == entry.model]
            raise ConfigError(
                f"{', '.join(fixed)} of {entry.model} is what tells {' and '.join(names)} apart in a benchmark; leave "
                "it out, and name the arms you want under benchmark (or after --benchmark)"
            )
        return Arm(
            entry.name,
            entry.model,
            task,
            entry.role,
            entry.setting,
            parameters={**settings, **entry.parameters},
            fixed=frozenset({*self.model_settings.get(entry.model, {}), *entry.parameters}),
        )

    def _settings(self, model: str) -> dict[str, Any]:
        """What the configuration says that this model reads; the size of vectors under the model's own name for it."""
        known = known_keys([model])
        given = {key: value for key, value in self.given.items() if key in known and key != "hidden_size"}
        other = OF_COMMENTS if task_of(get_model(model)) == "video" else OF_VIDEOS
        given = {key: value for key, value in given.items() if key not in other}
        if not getattr(get_model(model), "aligns", False):
            given = {key: value for key, value in given.items() if not key.startswith("alignment")}
        size = size_parameters(model, int(self.given.get("hidden_size") or DEFAULT_SIZE))
        size = {key: value for key, value in size.items() if key in known}  # rules have no vectors
        if model in CUSTOM:
            ours = f"model/{MODEL_OF[task_of(get_model(model))]}.yaml"
            values = {**read_yaml(properties_dir() / "overall.yaml"), **read_yaml(properties_dir() / ours)}
            given = {**{key: values[key] for key in EQUAL}, **given, PATH_KEY: f"{CUSTOM[model].module}:{model}"}
        return {**given, **size, **self.model_settings.get(model, {})}

    # ------------------------------------------------------------------ presets

    def ablation(self, ours: Iterable[Arm]) -> list[Arm]:
        """Table 4: the whole model and what is left without each of its parts, fine-tuned with the parameters chosen
        for the whole.

        Raises:
            ConfigError: there is no alignment to take parts from.
        """
        arms = []
        for whole in ours:
            base = _alignment(whole, "--ablation takes parts of the alignment away")
            arms.append(replace(whole, group=ABLATION))
            for name, setting, changes in ABLATIONS:
                parts = changes.get("alignment", {})
                alignment = {**base, **parts} if parts is not False else False
                arms.append(_variant(whole, name, setting, ABLATION, {**changes, "alignment": alignment}))
        return arms

    def alignment_steps(self, ours: Iterable[Arm], steps: Sequence[int]) -> list[Arm]:
        """Figure 3: an alignment of each length (0: none), fine-tuned with the parameters chosen for the whole.

        Raises:
            ConfigError: there is no alignment.
        """
        arms = []
        for whole in ours:
            base = _alignment(whole, "--alignment-steps changes the alignment")
            for number in steps:
                alignment = {**base, "steps": number} if number else False
                setting = f"steps-{number}" if number else NO_ALIGNMENT  # as in the ablation
                if number == load_alignment_config(base).steps:
                    setting, alignment = whole.setting, whole.parameters["alignment"]
                arms.append(_variant(whole, f"{number:,} steps", setting, STEPS, {"alignment": alignment}))
        return arms

    def cold(self, ours: Iterable[Arm]) -> list[Arm]:
        """Figure 4: LSVCR without ids and the baseline of the figure, each tuned."""
        arms = []
        for whole in ours:
            name = COLD_BASELINE[whole.task]
            baseline = next(entry for entry in CATALOGUE[whole.task] if entry.name == name)
            arms.append(replace(self._arm(baseline, whole.task), group=COLD))
            arms.append(replace(whole, group=COLD))
            without = _variant(whole, f"{whole.name} without ids", "no-id", COLD, {"use_id": False})
            arms.append(replace(without, chosen_with=None))
        return arms


def _variant(whole: Arm, name: str, setting: str, group: Group, changes: Mapping[str, Any]) -> Arm:
    return replace(
        whole,
        name=name,
        setting=setting,
        group=group,
        parameters={**whole.parameters, **changes},
        fixed=whole.fixed.union(changes),
        chosen_with=whole.setting,
    )


def _alignment(arm: Arm, why: str) -> dict[str, Any]:
    """The alignment of our arm as a mapping that can be changed."""
    value = arm.parameters.get("alignment")
    if not value:
        raise ConfigError(
            f"{why}, but alignment is off: set alignment to a preset (such as cpu-small), a YAML file or a mapping"
        )
    return dict(value) if isinstance(value, Mapping) else {"preset": value}


def _in_order(entries: Sequence[Entry], task: str) -> list[Entry]:
    """Rules first, then the catalogue's baselines in its order, then others as they were named."""
    places = {entry: place for place, entry in enumerate(CATALOGUE[task])}
    return sorted(entries, key=lambda entry: (entry.role != "rule", places.get(entry, len(places))))
