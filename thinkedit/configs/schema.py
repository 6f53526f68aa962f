"""The one typed description of a run. YAML recipes fill it; `load.py` composes and checks them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class PluginConfig:
    """A plug-in by entry-point name, with the options of its own `Config` class."""

    name: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class ServiceConfig(PluginConfig):
    """An editor or a judge: a plug-in with a deadline and a cache."""

    timeout_s: float = 120.0  # one edit or verdict, tries included; then outcome `timeout`
    cache_dir: str | None = None  # shared by all processes that name it; None: in memory only
    cache_gib: float = 10.0  # of all files in cache_dir; beyond it those used least lately go


@dataclass
class CanariesConfig:
    """Pairs of edits of known order, judged now and then during training, never from the cache."""

    every: int = 0  # learner steps, and at each start; 0: never
    pairs: int = 15  # two verdicts each
    file: str | None = None  # own pairs, JSONL; None: pictures of the built-in world
    warn_below: float = 0.8  # share of pairs in the right order


@dataclass
class JudgeConfig(ServiceConfig):
    canaries: CanariesConfig = field(default_factory=CanariesConfig)


@dataclass
class ProtocolConfig:
    """How observations become messages and replies become critiques."""

    template: str = "full"  # "full" explains the task (for instruct models), "brief" only states it
    compat: bool = False  # accept what the reference's parser accepts, for A/B runs only
    max_answer_chars: int = 2000


@dataclass
class EpisodeConfig:
    max_turns: int = 2  # critiques per episode; edits = 1 + critiques that changed the prompt
    accept_at: float = 8.0  # the thinker accepts when both predicted scores reach this
    start: str = "fresh"  # "fresh": edit 0 is made from the instruction; "stored": from a stored state


@dataclass
class RewardConfig:
    """A named profile, or own terms: `weights` replaces the profile's when given."""

    profile: str = "balanced"
    weights: dict[str, float] = field(default_factory=dict)  # term name -> weight
    options: dict[str, Any] = field(default_factory=dict)  # term name -> its options


@dataclass
class PolicyConfig:
    """A Hugging Face folder of any vision-language model that vLLM and verl load."""

    path: str = MISSING
    dtype: str = "bfloat16"
    attention: str = "sdpa"  # of the learner; flash_attention_2 packs rows, and needs flash-attn
    max_prompt_tokens: int = 16384
    max_reply_tokens: int = 4096
    min_pixels: int = 3136
    max_pixels: int = 1048576


@dataclass
class DemonstrationEditorConfig(ServiceConfig):
    """The editor that demonstrations are played with."""

    name: str = ""  # without a name it is the run's own editor


@dataclass
class SFTConfig:
    data: str | None = None  # a file of examples (docs/data.md); None: the scripted expert's demonstrations
    demonstrations: int = 60000  # how many it plays
    editor: DemonstrationEditorConfig = field(default_factory=DemonstrationEditorConfig)
    epochs: int = 1
    batch_size: int = 32
    lr: float = 2e-5
    beta2: float = 0.999  # AdamW's memory of squared gradients; short runs learn faster with 0.95
    warmup_ratio: float = 0.1
    weight_decay: float = 1e-6
    freeze_vision: bool = True
    micro_batch_size: int = 1


@dataclass
class RolloutConfig:
    temperature: float = 1.0
    top_p: float = 1.0  # below 1 for evaluation and editing only
    tensor_parallel: int = 1
    max_num_seqs: int = 256
    gpu_memory_utilization: float = 0.5
    workers: int = 8  # agent-loop actors
    concurrency: int = 64  # episodes in flight per actor
    cpu_threads: int = 1  # of the engine, device "cpu": small operations end before a second thread wakes


@dataclass
class AdvantageConfig:
    estimator: str = "turn"  # entry point of group thinkedit.advantages
    gamma: float = 1.0
    scale: str = "none"  # "none" | "group_std" | "batch_std"
    credit: str = "reply"  # "reply": one advantage for all tokens | "causal": the answer's has no critic
    think_weight: float = 1.0  # of what came of the answer, for the tokens of think and score before it
    shared_prefix: bool = False  # the critic is judged where siblings that wrote the same so far part
    answer_weight: float = 1.0  # of a token of the answer, where one of think and score weighs 1


@dataclass
class RehearsalConfig:
    """Demonstrations that GRPO goes on learning from, beside its rewards."""

    batch_size: int = 0  # in each update; 0: none
    weight: float = 1.0  # of their mean -log p per token, beside the policy's loss
    until: str | None = "</score>"  # only what ends with this; the answer is for the reward to teach


@dataclass
class FailuresConfig:
    """When turns without a reward (editor or judge failed) are too many, as fractions of `window`."""

    warn_at: float = 0.05
    stop_at: float = 0.20  # the run ends with a message, and resumes when started again
    window: int = 512  # turns looked back over


@dataclass
class GRPOConfig:
    steps: int = 1000
    tasks_per_step: int = 16
    group_size: int = 8
    lr: float = 2e-6
    warmup_steps: int = 0  # over which the learning rate rises to lr
    lr_schedule: str = "constant"  # after that: "constant" | "cosine", to 0 at the last step
    weight_decay: float = 0.01
    kl_coef: float = 1e-3  # to the SFT model; 0 leaves the reference model out
    kl_type: str = "low_var_kl"
    clip_low: float = 0.2
    clip_high: float = 0.3
    grad_clip: float = 1.0
    epochs_per_batch: int = 1
    updates_per_step: int = 1
    validate_every: int = 0  # steps between looks at held-out tasks, one before the first; 0: none
    validate_tasks: int = 64  # of split "val", always the same
    max_tokens_per_gpu: int = 16384  # of one micro-batch, dynamic batching
    freeze_vision: bool = True
    mode: str = "sync"
    save_every: int = 50  # steps, and at the end; 0: at the end only
    interpolation: float = 1.0  # of the way from the start that the exported policy goes; 1: all of it
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    rehearsal: RehearsalConfig = field(default_factory=RehearsalConfig)
    failures: FailuresConfig = field(default_factory=FailuresConfig)


@dataclass
class EvalConfig:
    tasks: int = 200
    temperature: float = 0.0
    seed: int = 0
    bootstrap: int = 2000


@dataclass
class ChatServerConfig:
    """A model behind an OpenAI-compatible server. Seconds, where a name ends in _s."""

    model: str = "gpt-4.1-2025-04-14"
    base_url: str = "https://api.openai.com/v1"
    api_key_env: str | None = "OPENAI_API_KEY"  # the variable that holds the key; null: none needed
    output: str = "json_schema"  # what it can be held to: "json_schema" | "json_object" | "text"
    temperature: float | None = 0.7  # null: not sent, for models that refuse it
    send_seed: bool = True  # the run's seed; another one for each try
    max_tokens: int | None = 4096  # of one reply; null: not sent
    max_side: int = 1024  # pixels; larger pictures are scaled down to it
    tries: int = 3  # of one request that the server fails
    request_timeout_s: float = 120.0  # one request, from its start to the last byte


@dataclass
class InferenceConfig:
    """Editing one's own pictures: `thinkedit edit` and `thinkedit studio`.

    Turns and threshold are those of `episode`.
    """

    thinker: str = "policy"  # "policy": `policy.path` in vLLM here | "server" | a scripted expert's name
    mode: str = "while"  # "while" | "before" | "before+while" | "expert"; see docs/editing.md
    select: str = "last"  # which edit is the result: "last" | "best_predicted" | "best_judge"
    tries: int = 3  # of a critique that can't be read, each sampled anew
    size: str | None = None  # WIDTHxHEIGHT that pictures are cut and scaled to; null: as they are
    server: ChatServerConfig = field(default_factory=ChatServerConfig)


@dataclass
class DataConfig:
    """How `build-data` turns trajectories into training sets (docs/data.md). O = sqrt(semantic * quality)."""

    keep_immediate_success: bool = False  # for SFT: single edits that the expert accepted, both >= good_at
    good_at: float = 8.0  # scores from here on are good
    poor_at: float = 3.0  # an expert that accepts an edit with a score this low contradicts the scorer,
    perfect_at: float = 9.5  # and one that wants more where both are this high
    exclude_images: list[str] = field(default_factory=list)  # benchmark images: files or folders
    exclude_distance: int = 4  # a source this close to one is left out; bits of a 64-bit hash
    balance_share: float = 0.9  # of the distinct trajectories; the fullest cells are cut to leave it
    target_trajectories: int | None = None  # so many instead
    rl_share: float = 1 / 7  # of the balanced trajectories, as in the paper (10 of 70 thousand)
    rl_trajectories: int | None = None  # so many instead
    rl_pool: float = 1.5  # candidates per trajectory that RL takes: what its balance has to choose from
    rl_min_variance: float | None = None  # of O, at least; None: what leaves rl_pool times RL's number
    sft_trajectories: int | None = None  # None: all that are fit
    formats: list[str] = field(default_factory=lambda: ["records", "llamafactory", "reference", "verl"])


@dataclass
class ClusterConfig:
    """What each part gets. device "cpu" runs the same path without a GPU."""

    device: str = "cuda"
    nodes: int = 1
    gpus_per_node: int = 8
    cpu_threads: int = 1  # device "cpu": SFT processes with one each, and threads of GRPO's one process


@dataclass
class CallLimits:
    """How fast calls may go, and what they cost. The currency is whatever the prices are in."""

    requests_per_minute: int | None = None  # None: no limit
    tokens_per_minute: int | None = None  # prompt and reply together
    per_million_input: float = 0.0  # tokens
    per_million_output: float = 0.0
    per_image: float = 0.0  # shown to a judge, or made by an editor
    per_request: float = 0.0


@dataclass
class LimitsConfig:
    """Limits of all processes of a run together. Without any, nothing is metered."""

    budget: float | None = None  # of the whole run, resumes included; then outcome `budget`
    editor: CallLimits = field(default_factory=CallLimits)
    judge: CallLimits = field(default_factory=CallLimits)
    models: dict[str, CallLimits] = field(default_factory=dict)  # by model, instead of its kind's


@dataclass
class Config:
    name: str = MISSING
    seed: int = 0
    run_dir: str = "runs/${name}"
    tasks: PluginConfig = field(default_factory=PluginConfig)
    editor: ServiceConfig = field(default_factory=ServiceConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    episode: EpisodeConfig = field(default_factory=EpisodeConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    grpo: GRPOConfig = field(default_factory=GRPOConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    data: DataConfig = field(default_factory=DataConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    loggers: list[str] = field(default_factory=lambda: ["tensorboard"])


def sft_ranks(cluster: ClusterConfig) -> int:
    """Data-parallel processes of the warm start: one for each GPU of a node, or each thread of a CPU.

    Small models spend more between operations than in them, where a second thread only waits.
    """
    return cluster.cpu_threads if cluster.device == "cpu" else cluster.gpus_per_node


def updates_in_a_step(grpo: GRPOConfig) -> int:
    return grpo.updates_per_step * grpo.epochs_per_batch


def rehearsed_in_all(grpo: GRPOConfig) -> int:
    """Demonstrations that a run rehearses, each once."""
    return grpo.steps * updates_in_a_step(grpo) * grpo.rehearsal.batch_size


def sft_micro_batch(config: Config) -> int:
    """Demonstrations that a process of the warm start takes at once: no more than its share of a batch."""
    return max(1, min(config.sft.micro_batch_size, config.sft.batch_size // sft_ranks(config.cluster)))
