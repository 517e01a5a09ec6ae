"""A model's files, checked before any weight is read: they are whole, and can be written again."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from align.config.policy import PolicyConfig
from align.errors import ModelError
from align.model.files.agreement import check_agreement
from align.model.files.hf_stream import in_checkpoint, own_tensors
from align.model.files.load import plain_config, resolve_model
from align.weights.headers import read_tensor, stored_tensors
from align.weights.loaded import HEAD, first_line, is_reward_model, quietly, refuse_incomplete, untied


def check_model(
    policy: PolicyConfig, *, score: bool = False, sampled: bool = False, key: str = "policy.path"
) -> None:
    """Check that the policy's weights are all there, and that those of its architecture can be written.

    The model is built without memory, from its configuration, and transformers is asked to load into it
    what the headers of the weight files announce, then what align would write. A model that comes from
    the hub is checked when it is loaded.

    Args:
        policy: which model.
        score: it gets (or has) a reward model's head.
        sampled: vLLM samples from it while it is trained, so that both must compute the same.
        key: of the recipe, for messages.

    Raises:
        ModelError: the directory's weights are missing, damaged, quantised or of another shape than
            config.json says; the architecture is one whose weights align cannot write back; or, if
            ``sampled``, config.json says what only one of vLLM and transformers computes with.
    """
    try:
        _check(policy, score, sampled)
    except ModelError as error:
        raise ModelError(error.message, file=error.file, key=error.key or key, remedy=error.remedy) from error


def _check(policy: PolicyConfig, score: bool, sampled: bool) -> None:
    config = plain_config(policy)
    source = resolve_model(policy.path)
    if sampled:
        check_agreement(config, file=Path(source) / "config.json" if Path(source).is_dir() else source)
    if policy.trust_remote_code and getattr(config, "auto_map", None):
        return  # its code may be unable to build without memory; loading checks it
    fresh = HEAD if score and not is_reward_model(config) else None
    if fresh:
        config.num_labels = 1
    model = _outline(config, source, score=score)
    written = checkpoint_outline(model, source)
    stored = {}
    if policy.init == "pretrained" and Path(source).is_dir():
        stored = stored_tensors(Path(source))
        refuse_incomplete(_load(model, stored, source), model, file=source, fresh_head=fresh)
        _tied_once(model, stored, source)
    if {name: each.shape for name, each in stored.items()} != {k: each.shape for k, each in written.items()}:
        check_round_trip(model, written, source)


def checkpoint_outline(model: Any, source: str) -> dict[str, Tensor]:
    """What :func:`hf_stream` writes for a model: names and tensors.

    Raises:
        ModelError: two of its tensors would get one name, or one cannot be written alone.
    """
    written: dict[str, Tensor] = {}
    for name, tensor in own_tensors(model):
        try:
            parts = in_checkpoint(model, name, tensor)
        except Exception as error:  # whatever an operation that needs further tensors raises
            raise _unwritable(model, source, name) from error
        if parts.keys() & written.keys():
            raise _unwritable(model, source, name)
        written |= parts
    return written


def check_round_trip(model: Any, written: Mapping[str, Tensor], source: str) -> None:
    """Refuse an architecture that does not get its own weights back from what align writes.

    Args:
        model: on the meta device.
        written: as of :func:`checkpoint_outline`.
        source: model directory, for the message.

    Raises:
        ModelError: naming a tensor that would be lost.
    """
    info = _load(model, written, source)
    lost = [*info["missing_keys"], *(each[0] for each in info["mismatched_keys"]), *info["unexpected_keys"]]
    if lost:
        raise _unwritable(model, source, sorted(lost)[0])


def _unwritable(model: Any, source: str, name: str) -> ModelError:
    return ModelError(
        f"weights of {type(model).__name__} cannot be written so that they load again: {name}",
        file=source,
        key="policy.path",
        remedy="use a model of another architecture",
    )


def _outline(config: Any, source: str, *, score: bool) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification if score else AutoModelForCausalLM
    try:
        with torch.device("meta"), quietly():
            return kind.from_config(copy.deepcopy(config), dtype=torch.bfloat16)
    except Exception as error:  # sizes that do not fit fail anywhere in a model's code, with any type
        raise ModelError(
            f"no model can be built from its config.json: {first_line(error)}",
            file=source,
            key="policy.path",
            remedy="use the config.json of a causal language model as transformers saves it",
        ) from error


def _load(model: Any, tensors: Mapping[str, Tensor], source: str) -> Mapping[str, Any]:
    """What transformers would say after loading ``tensors``, all of them without memory."""
    try:
        with quietly():
            _, info = type(model).from_pretrained(
                None,
                config=copy.deepcopy(model.config),
                state_dict=dict(tensors),
                device_map="meta",
                dtype=torch.bfloat16,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(
            f"the weights do not fit together: {first_line(error)}",
            file=source,
            key="policy.path",
            remedy="fetch or copy the model again",
        ) from error
    found: Mapping[str, Any] = info
    return found


def _tied_once(model: Any, stored: Mapping[str, Tensor], source: str) -> None:
    """transformers leaves two different tensors apart where the configuration ties them; engines do not."""
    head = model.get_output_embeddings()
    if head is None or head.weight is not model.get_input_embeddings().weight:
        return
    twins = [
        found
        for name, module in model.named_modules()
        if module in (head, model.get_input_embeddings())
        for found in in_checkpoint(model, f"{name}.weight", head.weight)
        if found in stored
    ]
    if len(twins) == 2 and not torch.equal(*(read_tensor(Path(source), name) for name in twins)):
        raise untied(source)
