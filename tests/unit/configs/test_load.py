from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from thinkedit.configs.load import (
    GROUPS,
    choices,
    load_config,
    recipes,
    save_config,
)
from thinkedit.errors import ConfigError, UnknownName


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_composes(name: str) -> None:
    config = load_config(name, require_plugins=False)
    assert config.name == name.split("/")[-1]
    assert config.run_dir == f"runs/{config.name}"


@pytest.mark.parametrize(
    ("group", "choice"), [(group, choice) for group in GROUPS for choice in choices(group)]
)
def test_every_group_choice_composes(group: str, choice: str) -> None:
    load_config("demo", [f"{group}={choice}"], require_plugins=False)


def test_the_paper_recipe_has_the_papers_figures() -> None:
    config = load_config("paper/flux_kontext", require_plugins=False)
    assert config.policy.path == "Qwen/Qwen3-VL-8B-Instruct"
    assert config.policy.max_pixels == 1024**2
    assert (config.grpo.group_size, config.grpo.lr, config.grpo.kl_coef) == (8, 2e-6, 1e-3)
    assert config.grpo.tasks_per_step == 16


def test_overrides_set_values_and_pick_files() -> None:
    config = load_config(
        "demo",
        [
            "grpo.lr=1e-5",
            "loggers=[file,tensorboard]",
            "reward=paper",
            "run_dir=elsewhere/${name}",
            "name=mine",
        ],
    )
    assert config.grpo.lr == 1e-5
    assert config.loggers == ["file", "tensorboard"]
    assert config.reward.profile == "paper"
    assert config.run_dir == "elsewhere/mine"


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("grpo.lrr=1", "grpo.lr"),
        ("gpro.lr=1", "grpo"),
        ("grpo.advantage.gama=1", "grpo.advantage.gamma"),
        ("group_size=4", "grpo.group_size"),
        ("editor=procedurall", "procedural"),
        ("protocol.template=breif", "brief"),
        ("grpo.advantage.scale=group_sd", "group_std"),
        ("editor.name=procedurel", "procedural"),
        ("grpo.advantage.estimator=turns", "turn"),
    ],
)
def test_unknown_names_offer_the_nearest(override: str, nearest: str) -> None:
    with pytest.raises(UnknownName) as caught:
        load_config("demo", [override])
    assert caught.value.nearest == nearest


def test_unknown_recipe_offers_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        load_config("dmeo")
    assert caught.value.nearest == "demo"


def test_options_of_a_plug_in_are_checked_too() -> None:
    with pytest.raises(UnknownName, match="tasks plug-in 'file'") as caught:
        load_config("demo", ["tasks=file", "tasks.options.val_shar=0.1"])
    assert caught.value.nearest == "val_share"
    with pytest.raises(ConfigError, match="could not be converted to Float"):
        load_config("demo", ["tasks=file", "tasks.options.val_share=much"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grpo.group_size=1", "grpo.group_size=1: a group of one"),
        ("grpo.steps=many", "grpo.steps: Value 'many'"),
        ("grpo.lr=0", "grpo.lr=0.0: must be above 0"),
        ("grpo.steps=0", "grpo.steps=0: must be at least 1"),
        ("grpo.kl_coef=-1", "grpo.kl_coef=-1.0: must not be negative"),
        ("grpo.failures.window=0", "grpo.failures.window=0: must be at least 1"),
        ("grpo.failures.stop_at=20", "grpo.failures.stop_at=20.0: must lie in [0, 1]"),
        ("grpo.failures.warn_at=0.3", "grpo.failures.warn_at=0.3: must lie in [0, 0.2]"),
        ("judge.cache_gib=0", "judge.cache_gib=0.0: must be above 0"),
        ("limits.budget=5", "limits.budget=5.0: without a price"),
        ("limits.judge.per_imag=5", "Did you mean 'limits.judge.per_image'"),
        ("limits.judge.per_image=-1", "limits.judge.per_image=-1.0: a price"),
        ("limits.judge.requests_per_minute=0", "limits.judge.requests_per_minute=0: must be at least 1"),
        ("limits.judge.requests_per_minute=5", "none of the run's judges is metered"),
        ("limits.editor.per_image=5", "none of the run's editors is metered"),
        ("limits.models={gpt: {per_image: 5}}", "unknown row of limits.models"),
        ("episode.max_turns=0", "episode.max_turns=0"),
        ("grpo.updates_per_step=3", "does not divide"),
        ("sft.batch_size=25", "each of 2 processes must be whole"),
        ("grpo.advantage.answer_weight=0", "must be above 0"),
        ("policy.max_pixels=100", "below policy.min_pixels"),
        ("rollout.tensor_parallel=2", "cluster.device=cpu"),
        ("policy.attention=flash_attention_2", "a CPU has sdpa only"),
        ("policy.attention=flash_attn", "flash_attention_2"),
        ("rollout.temperature=0", "siblings must differ"),
        ("grpo=3", "set one of them"),
        ("grpo={stepz: 3}", "Did you mean 'grpo.steps'"),
        ("+grpo.steps=1", "only KEY=VALUE"),
        ("grpo.steps", "not KEY=VALUE"),
    ],
)
def test_values_that_cannot_work_are_refused_with_their_field(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("demo", [override])
    assert message in str(caught.value)


def test_flash_attention_takes_half_precision_only() -> None:
    on_gpus = ["cluster=gpu_8", "policy.attention=flash_attention_2"]
    with pytest.raises(ConfigError, match="takes float16 and bfloat16 only"):
        load_config("demo", on_gpus)
    load_config("demo", [*on_gpus, "policy.dtype=bfloat16"])


@pytest.mark.parametrize(
    ("nodes", "gpus", "size", "fits"),
    [(2, 6, 4, False), (2, 6, 3, True), (2, 6, 12, True), (3, 4, 6, False), (4, 4, 8, True)],
)
def test_an_engine_fills_a_part_of_a_node_or_whole_nodes(
    nodes: int, gpus: int, size: int, fits: bool
) -> None:
    overrides = [
        "cluster=gpu_8",
        f"cluster.nodes={nodes}",
        f"cluster.gpus_per_node={gpus}",
        f"rollout.tensor_parallel={size}",
        "grpo.rehearsal.batch_size=0",
        f"sft.batch_size={gpus * 32}",
    ]
    if fits:
        assert load_config("demo", overrides).rollout.tensor_parallel == size
    else:
        with pytest.raises(ConfigError, match=f"rollout.tensor_parallel={size}: .*gpus_per_node={gpus}"):
            load_config("demo", overrides)


METERED = ["judge=viescore", "judge.options.model=gpt-4", "judge.options.api_key_env=null"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("limits.models={gpt-5: {per_image: 5}}", "Did you mean 'gpt-4'"),
        ("limits.models={gpt-4: {per_imag: 5}}", "per_imag"),
        ("limits.models={gpt-4: 5}", "gpt-4"),
        ("limits.models={gpt-4: {per_image: -5}}", "limits.models.gpt-4.per_image=-5.0"),
    ],
)
def test_rows_of_limits_are_checked_by_name_and_field(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("demo", [*METERED, override])
    assert message in str(caught.value)


def test_a_row_by_model_and_a_budget_are_taken_and_saved(tmp_path: Path) -> None:
    config = load_config("demo", [*METERED, "limits.models={gpt-4: {per_image: 0.5}}", "limits.budget=3"])
    assert config.limits.models["gpt-4"].per_image == 0.5
    save_config(config, tmp_path / "run")
    assert load_config(tmp_path / "run") == config


def test_missing_plug_ins_are_refused_unless_it_is_a_dry_run() -> None:
    override = ["editor.name=an_editor_nobody_wrote"]
    with pytest.raises(UnknownName, match="an_editor_nobody_wrote"):
        load_config("demo", override)
    assert load_config("demo", override, require_plugins=False).editor.name == "an_editor_nobody_wrote"


def test_a_saved_config_loads_equal(tmp_path: Path) -> None:
    config = load_config("demo", ["grpo.lr=3e-5", "editor.timeout_s=7"])
    save_config(config, tmp_path / "run")
    assert load_config(tmp_path / "run") == config
    assert load_config(tmp_path / "run" / "config.yaml") == config


def test_own_recipe_lives_anywhere_and_builds_on_ours(tmp_path: Path) -> None:
    folder = tmp_path / "my recipes, v=1"
    write(folder / "reward" / "strict.yaml", "weights: {format: 0.2, semantic: 0.8}\n")
    recipe = write(
        folder / "mine.yaml",
        "defaults:\n  - demo\n  - override reward: strict\n  - _self_\ngrpo:\n  lr: 0.5\n",
    )
    config = load_config(recipe, ["cluster.cpu_threads=2"])
    assert config.reward.weights == {"format": 0.2, "semantic": 0.8}
    assert (config.grpo.lr, config.cluster.cpu_threads, config.editor.name) == (0.5, 2, "procedural")


def test_own_recipe_without_a_name_takes_its_files(tmp_path: Path) -> None:
    text = "tasks: {name: world}\neditor: {name: procedural}\njudge: {name: world}\npolicy: {path: x}\n"
    assert load_config(write(tmp_path / "small.yaml", text)).run_dir == "runs/small"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grpo:\n  advantage:\n    gama: 1\n", "Did you mean 'grpo.advantage.gamma'"),
        ("defaults:\n  - dem\n", "Did you mean 'demo'"),
        ("defaults:\n  - demo\n  - edtor: procedural\n", "Did you mean 'editor'"),
        ("defaults:\n  - demo\n  - override editor: procedurl\n", "Did you mean 'procedural'"),
        ("grpo: [1\n", "is not YAML"),
        ("grpo:\n  lr: 1\n", "is not set"),
        ("grpo: 3\n", "grpo=3: must hold keys of its own"),
    ],
)
def test_faults_in_own_recipes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path / "bad.yaml", text))
    assert message in str(caught.value)


def test_a_part_the_recipe_sets_itself_cannot_be_swapped_for_a_file(tmp_path: Path) -> None:
    recipe = write(tmp_path / "own.yaml", "defaults:\n  - cluster: cpu\neditor:\n  name: procedural\n")
    with pytest.raises(ConfigError, match="sets this part itself"):
        load_config(recipe, ["editor=procedural"])


def test_of_a_saved_run_whole_parts_can_be_swapped(tmp_path: Path) -> None:
    saved = load_config("demo", ["editor.options={verbs: {make: 0.5}}", "grpo.lr=1e-3", "eval.tasks=7"])
    save_config(saved, tmp_path)
    swapped = load_config(
        tmp_path, ["editor=http", "editor.options.urls=[http://127.0.0.1:1]", "eval.tasks=8"]
    )
    assert (swapped.editor.name, swapped.editor.options["urls"]) == ("http", ["http://127.0.0.1:1"])
    assert "verbs" not in swapped.editor.options
    assert (swapped.grpo.lr, swapped.eval.tasks) == (1e-3, 8)
    assert load_config(tmp_path, ["editor@sft.editor=procedural"]).sft.editor.options == {}
    assert load_config(tmp_path).editor.options == {"verbs": {"make": 0.5}}
    write(tmp_path / "editor" / "mine.yaml", "name: procedural\n")
    assert load_config(tmp_path, ["editor=mine"]).editor.options == {}
    with pytest.raises(UnknownName, match="Did you mean 'http'"):
        load_config(tmp_path, ["editor=htp"])


def test_a_program_that_uses_hydra_itself_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "theirs.yaml", "answer: 42\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        load_config("demo")
        assert compose("theirs").answer == 42


def test_demonstrations_may_have_an_editor_of_their_own() -> None:
    config = load_config("demo")
    assert len(set(config.sft.editor.options["verbs"].values())) == 1  # even-handed: nothing to leak
    assert not config.editor.options
    assert load_config("demo", ["editor@sft.editor=procedural"]).sft.editor.options == {}
    assert load_config("paper/flux_kontext", require_plugins=False).sft.editor.name == ""
    with pytest.raises(UnknownName) as caught:
        load_config("demo", ["sft.editor.name=procedurel"])
    assert caught.value.nearest == "procedural"
    with pytest.raises(ConfigError, match=r"sft\.editor\.options"):
        load_config("demo", ["sft.editor.name=''"])


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("judge.options.judges=[{name: world},{name: viescor}]", "viescore"),
        ("judge.options.judges=[{name: world},{name: viescore, options: {sampels: 2}}]", "samples"),
    ],
)
def test_judges_inside_a_judge_are_looked_at_before_a_run(override: str, says: str) -> None:
    with pytest.raises(UnknownName, match=f"'{says}'"):
        load_config("demo", ["judge=ensemble", override])
