"""Log-probabilities in blocks are the plain ones, gradients too."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("verl")

from verl.workers.engine.fsdp import transformer_impl  # noqa: E402

from thinkedit.learner import log_probs  # noqa: E402


@pytest.mark.parametrize("shape", [(5,), (2, 3), (7, 1)])
@pytest.mark.parametrize("rows", [1, 2, 1024])
def test_they_equal_the_plain_ones(
    shape: tuple[int, ...], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_probs, "ROWS", rows)
    logits = torch.randn(*shape, 11, requires_grad=True)
    labels = torch.randint(0, 11, shape)
    plain = logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    ours = log_probs.token_log_probs(logits, labels)
    assert torch.allclose(ours, plain, atol=1e-6)
    weights = torch.randn(shape)
    gradients = [
        torch.autograd.grad((weights * x).sum(), logits, retain_graph=True)[0] for x in (ours, plain)
    ]
    assert torch.allclose(*gradients, atol=1e-6)


def test_half_precision_is_summed_in_full() -> None:
    logits, labels = torch.randn(6, 2048).to(torch.bfloat16), torch.randint(0, 2048, (6,))
    plain = logits.float().log_softmax(-1).gather(-1, labels[:, None])[:, 0]
    ours = log_probs.token_log_probs(logits, labels)
    assert ours.dtype == torch.float32
    assert torch.allclose(ours, plain, atol=1e-5)


def test_half_precision_keeps_no_copy_in_full_for_the_backward_pass() -> None:
    logits = torch.randn(6, 2048).to(torch.bfloat16).requires_grad_()
    kept: list[torch.Size] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype == torch.float32:
            kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        ours = log_probs.token_log_probs(logits, torch.randint(0, 2048, (6,)))
    assert logits.shape not in kept
    [gradient] = torch.autograd.grad(ours.sum(), logits)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("kernel", [False, True])
def test_verl_keeps_the_kernel_of_flash_attn_where_it_has_it(
    kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_probs.torch_functional, "FLAH_ATTN_CROSS_ENTROPY_LOSS_AVAILABLE", kernel)
    own = transformer_impl.logprobs_from_logits
    with log_probs.in_blocks():
        assert transformer_impl.logprobs_from_logits is (own if kernel else log_probs.token_log_probs)
    assert transformer_impl.logprobs_from_logits is own
