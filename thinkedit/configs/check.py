"""What types can't say: ranges, known names, and values that contradict each other.

Messages name the field, its value and the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict
from math import inf
from typing import Any

from thinkedit import plugins
from thinkedit.configs.schema import (
    CallLimits,
    Config,
    LimitsConfig,
    PluginConfig,
    sft_micro_batch,
    sft_ranks,
)
from thinkedit.errors import ConfigError, UnknownName

TEMPLATES = ("brief", "full")
STARTS = ("fresh", "stored")
SCALES = ("none", "group_std", "batch_std")
SCHEDULES = ("constant", "cosine")
CREDITS = ("reply", "causal")
MODES = ("sync", "separate_async")
DEVICES = ("cpu", "cuda")
ATTENTIONS = ("sdpa", "flash_attention_2")
DTYPES = ("bfloat16", "float16", "float32")
KL_TYPES = ("kl", "abs", "mse", "low_var_kl")  # verl's estimators of the KL term in the loss
MODES_OF_INFERENCE = ("while", "before", "before+while", "expert")
SELECTIONS = ("last", "best_predicted", "best_judge")
OUTPUTS = ("json_schema", "json_object", "text")
LOGGERS = ("clearml", "console", "file", "mlflow", "swanlab", "tensorboard", "trackio", "wandb")  # verl's


def check(config: Config) -> None:
    """Refuse values that can't work.

    Raises:
        UnknownName: a name outside its list; the message offers the nearest.
        ConfigError: a value out of range, or two values that contradict each other.
    """
    _names(config)
    _ranges(config)
    _together(config)
    _limits(config.limits)
    _plugin_options(config)


def unmet(config: Config) -> list[ConfigError]:
    """Plug-ins that the config names and that are not installed, or can't be imported here."""
    missing: list[ConfigError] = []
    for kind, name, _ in _plugins(config):
        try:
            plugins.load(kind, name)
        except ConfigError as error:
            missing.append(error)
    return missing


def _plugins(config: Config) -> Iterator[tuple[str, str, PluginConfig | None]]:
    yield "tasks", config.tasks.name, config.tasks
    yield "editors", config.editor.name, config.editor
    if config.sft.editor.name:
        yield "editors", config.sft.editor.name, config.sft.editor
    yield from _with_inner("judges", config.judge)
    yield "advantages", config.grpo.advantage.estimator, None


def _with_inner(kind: str, plugin: PluginConfig) -> Iterator[tuple[str, str, PluginConfig]]:
    """A plug-in, then those of its kind that its options name, such as the judges of an ensemble."""
    yield kind, plugin.name, plugin
    try:
        options = plugins.typed(plugins.load(kind, plugin.name).Config, plugin.options, where=plugin.name)
    except ConfigError:
        return  # whoever looks at the plug-in itself tells
    for value in vars(options).values():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, PluginConfig):
                yield from _with_inner(kind, inner)


def _plugin_options(config: Config) -> None:
    found: list[tuple[str, type[Any], Any]] = []
    complete = True
    for kind, name, plugin in _plugins(config):
        if plugin is None:
            continue
        try:
            loaded = plugins.load(kind, name)
        except ConfigError:
            complete = False
            continue  # `unmet` tells; without the plug-in nobody knows its options
        options = plugins.typed(loaded.Config, plugin.options, where=f"{kind} plug-in {name!r}")
        found.append((kind, loaded, options))
    if complete:
        _limits_meet_calls(config.limits, found)


def _limits_meet_calls(limits: LimitsConfig, found: Collection[tuple[str, type[Any], Any]]) -> None:
    """Refuse a row that no call would ever meet. found: kind, class and options of each plug-in."""
    metered = [(kind, options) for kind, cls, options in found if getattr(cls, "metered", False)]
    for field, row, kind in (("editor", limits.editor, "editors"), ("judge", limits.judge, "judges")):
        if row != CallLimits() and kind not in {kind for kind, _ in metered}:
            raise ConfigError(f"limits.{field}: none of the run's {kind} is metered, so nothing is limited")
    known = [model for _, options in metered for model in _models(asdict(options))]
    for model in limits.models:
        _one_of("row of limits.models (the options of metered plug-ins name the models)", model, known)


def _models(options: Any) -> Iterator[str]:
    """Every value of a key called `model`, at any depth."""
    if isinstance(options, dict):
        if isinstance(options.get("model"), str):
            yield options["model"]
        options = list(options.values())
    if isinstance(options, list):
        for inner in options:
            yield from _models(inner)


def _limits(limits: LimitsConfig) -> None:
    rows = {"editor": limits.editor, "judge": limits.judge}
    rows |= {f"models.{model}": row for model, row in limits.models.items()}
    priced = False
    for name, row in rows.items():
        for field, value in asdict(row).items():
            if field.endswith("_per_minute"):
                if value is not None and value < 1:
                    raise _wrong(f"limits.{name}.{field}", value, "must be at least 1; null for no limit")
            elif not 0 <= value < inf:
                raise _wrong(f"limits.{name}.{field}", value, "a price can't be negative or without end")
            else:
                priced = priced or value > 0
    if limits.budget is not None and not 0 < limits.budget < inf:
        raise _wrong("limits.budget", limits.budget, "must be above 0; null for no limit")
    if limits.budget is not None and not priced:
        raise _wrong("limits.budget", limits.budget, "without a price in limits it would never be spent")


def _names(config: Config) -> None:
    _one_of("protocol.template", config.protocol.template, TEMPLATES)
    _one_of("episode.start", config.episode.start, STARTS)
    _one_of("grpo.advantage.scale", config.grpo.advantage.scale, SCALES)
    _one_of("grpo.advantage.credit", config.grpo.advantage.credit, CREDITS)
    _one_of("grpo.lr_schedule", config.grpo.lr_schedule, SCHEDULES)
    _one_of("grpo.kl_type", config.grpo.kl_type, KL_TYPES)
    _one_of("grpo.mode", config.grpo.mode, MODES)
    _one_of("cluster.device", config.cluster.device, DEVICES)
    _one_of("policy.attention", config.policy.attention, ATTENTIONS)
    _one_of("policy.dtype", config.policy.dtype, DTYPES)
    _one_of("inference.mode", config.inference.mode, MODES_OF_INFERENCE)
    _one_of("inference.select", config.inference.select, SELECTIONS)
    _one_of("inference.server.output", config.inference.server.output, OUTPUTS)
    for logger in config.loggers:
        _one_of("loggers", logger, LOGGERS)


def _ranges(config: Config) -> None:
    grpo, sft, policy, rollout = config.grpo, config.sft, config.policy, config.rollout
    if grpo.group_size < 2:
        raise _wrong("grpo.group_size", grpo.group_size, "a group of one has no sibling to be compared with")
    for field, value in {
        "cluster.cpu_threads": config.cluster.cpu_threads,
        "cluster.gpus_per_node": config.cluster.gpus_per_node,
        "cluster.nodes": config.cluster.nodes,
        "episode.max_turns": config.episode.max_turns,
        "eval.bootstrap": config.eval.bootstrap,
        "eval.tasks": config.eval.tasks,
        "grpo.epochs_per_batch": grpo.epochs_per_batch,
        "grpo.failures.window": grpo.failures.window,
        "grpo.max_tokens_per_gpu": grpo.max_tokens_per_gpu,
        "grpo.steps": grpo.steps,
        "grpo.tasks_per_step": grpo.tasks_per_step,
        "grpo.updates_per_step": grpo.updates_per_step,
        "grpo.validate_tasks": grpo.validate_tasks,
        "judge.canaries.pairs": config.judge.canaries.pairs,
        "inference.server.max_side": config.inference.server.max_side,
        "inference.server.tries": config.inference.server.tries,
        "inference.tries": config.inference.tries,
        "policy.max_prompt_tokens": policy.max_prompt_tokens,
        "policy.max_reply_tokens": policy.max_reply_tokens,
        "policy.min_pixels": policy.min_pixels,
        "protocol.max_answer_chars": config.protocol.max_answer_chars,
        "rollout.concurrency": rollout.concurrency,
        "rollout.cpu_threads": rollout.cpu_threads,
        "rollout.max_num_seqs": rollout.max_num_seqs,
        "rollout.tensor_parallel": rollout.tensor_parallel,
        "rollout.workers": rollout.workers,
        "sft.batch_size": sft.batch_size,
        "sft.demonstrations": sft.demonstrations,
        "sft.epochs": sft.epochs,
        "sft.micro_batch_size": sft.micro_batch_size,
    }.items():
        if value < 1:
            raise _wrong(field, value, "must be at least 1")
    for field, number in {
        "editor.cache_gib": config.editor.cache_gib,
        "editor.timeout_s": config.editor.timeout_s,
        "grpo.advantage.answer_weight": grpo.advantage.answer_weight,
        "grpo.grad_clip": grpo.grad_clip,
        "grpo.interpolation": grpo.interpolation,
        "grpo.lr": grpo.lr,
        "grpo.rehearsal.weight": grpo.rehearsal.weight,
        "inference.server.request_timeout_s": config.inference.server.request_timeout_s,
        "judge.cache_gib": config.judge.cache_gib,
        "judge.timeout_s": config.judge.timeout_s,
        "sft.editor.cache_gib": sft.editor.cache_gib,
        "sft.editor.timeout_s": sft.editor.timeout_s,
        "sft.lr": sft.lr,
    }.items():
        if not number > 0:
            raise _wrong(field, number, "must be above 0")
    for field, number in {
        "eval.temperature": config.eval.temperature,
        "grpo.clip_high": grpo.clip_high,
        "grpo.kl_coef": grpo.kl_coef,
        "grpo.rehearsal.batch_size": grpo.rehearsal.batch_size,
        "grpo.save_every": grpo.save_every,
        "grpo.validate_every": grpo.validate_every,
        "grpo.warmup_steps": grpo.warmup_steps,
        "grpo.weight_decay": grpo.weight_decay,
        "judge.canaries.every": config.judge.canaries.every,
        "seed": config.seed,
        "sft.weight_decay": sft.weight_decay,
    }.items():
        if not number >= 0:
            raise _wrong(field, number, "must not be negative")
    if not 0 <= sft.beta2 < 1:
        raise _wrong("sft.beta2", sft.beta2, "must be at least 0 and below 1")
    data = config.data
    for field, size in {
        "data.rl_trajectories": data.rl_trajectories,
        "data.sft_trajectories": data.sft_trajectories,
        "data.exclude_distance": data.exclude_distance,
        "data.rl_min_variance": data.rl_min_variance,
    }.items():
        if size is not None and not size >= 0:
            raise _wrong(field, size, "must not be negative")
    if data.target_trajectories is not None and data.target_trajectories < 1:
        raise _wrong("data.target_trajectories", data.target_trajectories, "must be at least 1")
    if not data.rl_pool >= 1:
        raise _wrong("data.rl_pool", data.rl_pool, "candidates per chosen trajectory: at least 1")
    _between("data.balance_share", data.balance_share, 0, 1, "a share of the trajectories")
    _between("data.rl_share", data.rl_share, 0, 1, "a share of the trajectories")
    for field, mark in {
        "data.good_at": data.good_at,
        "data.poor_at": data.poor_at,
        "data.perfect_at": data.perfect_at,
    }.items():
        _between(field, mark, 0, 10, "scores lie in [0, 10]")
    _between("episode.accept_at", config.episode.accept_at, 0, 10, "scores lie in [0, 10]")
    _between("grpo.advantage.gamma", grpo.advantage.gamma, 0, 1, "a discount lies in [0, 1]")
    _between("grpo.failures.stop_at", grpo.failures.stop_at, 0, 1, "a share of the window")
    _between(
        "grpo.failures.warn_at", grpo.failures.warn_at, 0, grpo.failures.stop_at, "no use after the stop"
    )
    _between("grpo.clip_low", grpo.clip_low, 0, 1, "a probability ratio can't fall below 0")
    _between("rollout.gpu_memory_utilization", rollout.gpu_memory_utilization, 0, 1, "a share of memory")
    _between("rollout.top_p", rollout.top_p, 0, 1, "a probability")
    _between("judge.canaries.warn_below", config.judge.canaries.warn_below, 0, 1, "a share of the pairs")
    _between("grpo.advantage.think_weight", grpo.advantage.think_weight, 0, 1, "a share of the credit")
    _between("grpo.interpolation", config.grpo.interpolation, 0, 1, "a share of the way")
    _between("sft.warmup_ratio", sft.warmup_ratio, 0, 1, "a share of the steps")
    if not rollout.temperature > 0:
        raise _wrong("rollout.temperature", rollout.temperature, "siblings must differ to be compared")
    if rollout.top_p == 0:
        raise _wrong("rollout.top_p", rollout.top_p, "siblings must differ to be compared")


def _together(config: Config) -> None:
    grpo, cluster, policy = config.grpo, config.cluster, config.policy
    if config.sft.editor.options and not config.sft.editor.name:
        raise _wrong("sft.editor.options", config.sft.editor.options, "sft.editor.name says whose they are")
    if policy.max_pixels < policy.min_pixels:
        raise _wrong("policy.max_pixels", policy.max_pixels, f"below policy.min_pixels={policy.min_pixels}")
    rows = grpo.tasks_per_step * grpo.group_size
    if rows % grpo.updates_per_step:
        raise _wrong(
            "grpo.updates_per_step",
            grpo.updates_per_step,
            f"does not divide grpo.tasks_per_step * grpo.group_size = {rows} episodes",
        )
    learners = cluster.nodes * cluster.gpus_per_node
    if grpo.rehearsal.batch_size % learners:
        raise _wrong(
            "grpo.rehearsal.batch_size",
            grpo.rehearsal.batch_size,
            f"does not divide among the learner's {learners} processes",
        )
    ranks = sft_ranks(cluster)
    if config.sft.batch_size % ranks or (config.sft.batch_size // ranks) % sft_micro_batch(config):
        raise _wrong(
            "sft.batch_size",
            config.sft.batch_size,
            f"its share for each of {ranks} processes must be whole, and full micro-batches of "
            f"sft.micro_batch_size={config.sft.micro_batch_size} or fewer than that",
        )
    if grpo.advantage.credit == "causal" and grpo.advantage.estimator == "outcome":
        raise _wrong("grpo.advantage.credit", "causal", "estimator 'outcome' has no critic to take out")
    if grpo.advantage.think_weight != 1 and grpo.advantage.credit != "causal":
        raise _wrong("grpo.advantage.think_weight", grpo.advantage.think_weight, "needs credit=causal")
    if grpo.advantage.shared_prefix and grpo.advantage.credit != "causal":
        raise _wrong("grpo.advantage.shared_prefix", True, "needs credit=causal")
    if cluster.device == "cpu" and policy.attention != "sdpa":
        raise _wrong("policy.attention", policy.attention, "a CPU has sdpa only")
    if policy.attention == "flash_attention_2" and policy.dtype == "float32":
        raise _wrong("policy.attention", policy.attention, "takes float16 and bfloat16 only, not float32")
    if cluster.device == "cuda":
        gpus = cluster.nodes * cluster.gpus_per_node
        if gpus % config.rollout.tensor_parallel:
            raise _wrong(
                "rollout.tensor_parallel",
                config.rollout.tensor_parallel,
                f"does not divide cluster.nodes * cluster.gpus_per_node = {gpus} GPUs",
            )
        _whole_nodes(config)
    elif config.rollout.tensor_parallel != 1:
        raise _wrong(
            "rollout.tensor_parallel", config.rollout.tensor_parallel, "must be 1 on cluster.device=cpu"
        )
    if config.reward.weights and not any(config.reward.weights.values()):
        raise _wrong(
            "reward.weights", config.reward.weights, "all weights are zero: nothing would be learned"
        )


def _whole_nodes(config: Config) -> None:
    """Refuse engines that begin within one node and end within another."""
    size, node = config.rollout.tensor_parallel, config.cluster.gpus_per_node
    if node % size and size % node:
        raise _wrong(
            "rollout.tensor_parallel",
            size,
            "an engine fills a part of a node or whole nodes, so it must divide "
            f"cluster.gpus_per_node={node} or be a multiple of it",
        )


def _one_of(field: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise UnknownName(field, value, known)


def _between(field: str, value: float, low: float, high: float, reason: str) -> None:
    if not low <= value <= high:
        raise _wrong(field, value, f"must lie in [{low}, {high}]: {reason}")


def _wrong(field: str, value: Any, reason: str) -> ConfigError:
    return ConfigError(f"{field}={value}: {reason}")
