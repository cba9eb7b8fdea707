"""Wraps the step in DeepSpeed, and gathers the tensors that ZeRO partitions over the workers.

All code that depends on the ZeRO stage is here. This module returns parameters and AdamW's state as whole, named
tensors, so a saved state loads into any number of workers under any ZeRO stage.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from ctxner.config import Config, RunConfig
from ctxner.model.tagger import EncoderCRF
from ctxner.training.estimate.memory import BUCKET_ELEMENTS, LIVE_ELEMENTS
from ctxner.training.step import CooperativeStep, linear_schedule, parameter_groups

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # constants of malloc.h; setting the first stops its automatic growth
MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's state per parameter; its step count equals the run's


def build_engine(step: CooperativeStep, config: Config, num_steps: int, *, num_done: int = 0) -> Any:
    """Wrap the step in DeepSpeed: AdamW with parameter groups, linear schedule, clipping, ZeRO.

    Args:
        step: Training step with the initial parameters; under ZeRO-3 each worker keeps only its part of them.
        config: Settings of the run; only the optim and run sections are read.
        num_steps: Number of optimizer steps of the whole run.
        num_done: Number of steps already done on these parameters; if above 0, call `restore_moments` afterwards.
    """
    import deepspeed  # after DS_ACCELERATOR is set

    # Only inference uses this operation; without this line the first run compiles it, which takes a minute and g++.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    optim = config.optim
    groups = parameter_groups(
        step.model,
        encoder_lr=optim.encoder_lr,
        head_lr=optim.head_lr,
        crf_lr=optim.crf_lr,
        weight_decay=optim.weight_decay,
    )
    optimizer = torch.optim.AdamW(groups, fused=True)
    schedule = linear_schedule(num_steps, warmup=optim.warmup)
    engine, *_ = deepspeed.initialize(
        model=step,
        optimizer=optimizer,
        lr_scheduler=lambda inner: torch.optim.lr_scheduler.LambdaLR(inner, lambda later: schedule(num_done + later)),
        dist_init_required=False,
        config={
            "train_micro_batch_size_per_gpu": 1,  # batches are planned here, not by DeepSpeed
            "gradient_accumulation_steps": 1,
            "gradient_clipping": optim.clip,
            "zero_optimization": _zero(config.run),
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,  # DeepSpeed's CPU AdamW would have to be compiled
            "steps_per_print": 10**9,
        },
    )
    if config.run.zero_stage == 3:
        for parameter in step.model.crf.parameters():  # the losses use them outside CRF.forward
            deepspeed.zero.register_external_parameter(step, parameter)
    if config.run.zero_stage == 0:
        engine.enable_backward_allreduce = False  # `reduce_gradients` averages them if there are several workers
    if config.run.zero_stage and not config.run.offload:
        _share_master_weights(engine.optimizer, config.run.zero_stage)
    _create_moments(engine, num_done)
    return engine


def reduce_gradients(engine: Any) -> None:
    """Average the workers' gradients after a backward pass without ZeRO; all workers call it together.

    Under ZeRO it does nothing, because DeepSpeed averages during the backward pass. Without ZeRO, DeepSpeed averages
    only at the gradient accumulation boundary: after a step's last micro-batch.
    """
    if engine.zero_optimization_stage() == 0 and engine.world_size > 1:
        engine.allreduce_gradients()


def _zero(run: RunConfig) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "stage": run.zero_stage,
        "reduce_bucket_size": BUCKET_ELEMENTS,
        "stage3_max_live_parameters": LIVE_ELEMENTS,
        "stage3_max_reuse_distance": LIVE_ELEMENTS,
    }
    if run.offload:
        settings["offload_optimizer"] = {"device": "cpu"}
        if run.zero_stage == 3:
            settings["offload_param"] = {"device": "cpu"}
    return settings


def return_freed_memory() -> None:
    """Make the C library (glibc) return each freed block of 1 MiB or more to the system; costs more page faults.

    ZeRO-3 on CPUs gathers and frees each layer repeatedly; memory that glibc keeps is not available to other processes.
    """
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, 2**20)
        library.mallopt(_M_ARENA_MAX, 2)


def whole_model(model: EncoderCRF, *, keep: bool = True) -> EncoderCRF | None:
    """Model with all its parameters: the model itself, or under ZeRO-3 a copy in main memory without ZeRO's hooks.

    All workers call it together.

    Args:
        model: Model inside the engine.
        keep: Whether this worker needs the copy; if False, it only sends its part of each parameter and gets None.
    """
    if not any(_is_partitioned(parameter) for parameter in model.parameters()):
        return model
    whole = {}
    for name, parameter in _whole_parameters(model):
        if keep:
            whole[name] = parameter.cpu().clone()
    if not keep:
        return None
    buffers = {name: tensor for name, tensor in model.state_dict().items() if name not in whole}
    copy: EncoderCRF = EncoderCRF.from_pretrained(None, config=model.config, state_dict={**buffers, **whole})
    return copy


def _whole_parameters(model: EncoderCRF) -> Iterator[tuple[str, Tensor]]:
    """Yield each parameter with its name; ZeRO-3 gathers it only until the caller asks for the next one."""
    import deepspeed

    for name, parameter in model.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            yield name, parameter.detach()


def own_moments(engine: Any, rank: int, world_size: int) -> dict[str, Tensor]:
    """Return a worker's share of AdamW's state: `<parameter>.exp_avg` and `.exp_avg_sq`, whole tensors in main memory.

    All workers call it together; each takes every `world_size`-th parameter.

    Raises:
        FloatingPointError: A moment is not finite, because a gradient was not.
    """
    mine = {}
    for place, (name, parameter) in enumerate(_trainable(engine)):
        for key in MOMENTS:
            moment = _whole_moment(engine, parameter, key)
            if place % world_size != rank:
                continue
            if not moment.isfinite().all():
                raise FloatingPointError(f"{key} of {name} not finite: a gradient was not")
            mine[f"{name}.{key}"] = moment.detach().cpu().clone()
    return mine


def restore_moments(engine: Any, read: Callable[[str], Tensor | None]) -> None:
    """Load AdamW's state from a checkpoint.

    Args:
        engine: New engine, with any number of workers and any ZeRO stage.
        read: Function from a name as in `own_moments` to its tensor, or to None if absent; absent moments stay zero.
    """
    for name, parameter in _trainable(engine):
        for key in MOMENTS:
            if (moment := read(f"{name}.{key}")) is not None:
                _set_moment(engine, parameter, moment, key)


def _share_master_weights(optimizer: Any, stage: int) -> None:
    """Use the float32 parameters as master weights instead of DeepSpeed's copy (stage 3 copies only without a GPU)."""
    if stage == 3:
        masters, parts = optimizer.fp32_partitioned_groups_flat, optimizer.fp16_partitioned_groups_flat
    else:
        masters, groups = optimizer.single_partition_of_fp32_groups, optimizer.parallel_partitioned_bit16_groups
        parts = [group[torch.distributed.get_rank()] for group in groups]
    for master, part in zip(masters, parts, strict=True):
        assert part.dtype == master.dtype == torch.float32
        master.data = part.data


def _create_moments(engine: Any, num_done: int) -> None:
    """Create AdamW's state before any step, with the values that AdamW would create in its first step.

    DeepSpeed 0.19 links parameters to this state after the first group's first step, so it misses the other groups.
    """
    stage, optimizer = engine.zero_optimization_stage(), engine.optimizer
    if stage == 0:
        parts = [parameter for _, parameter in _trainable(engine)]
    else:  # AdamW sees one flat tensor per group: this worker's parts of the parameters, concatenated
        parts = optimizer.fp32_partitioned_groups_flat if stage == 3 else optimizer.single_partition_of_fp32_groups
    for part in parts:
        step = torch.tensor(float(num_done), device=part.device)
        engine.basic_optimizer.state[part] = {"step": step, **{key: torch.zeros_like(part) for key in MOMENTS}}
    if stage in (1, 2):
        optimizer._lazy_init_hp_params_optimizer_state()


def _trainable(engine: Any) -> list[tuple[str, Tensor]]:
    return [(name, parameter) for name, parameter in engine.module.model.named_parameters() if parameter.requires_grad]


def _is_partitioned(parameter: Tensor) -> bool:
    return hasattr(parameter, "ds_id")


def _whole_moment(engine: Any, parameter: Tensor, key: str) -> Tensor:
    from deepspeed.utils import safe_get_full_optimizer_state

    if engine.zero_optimization_stage() == 0:
        return engine.basic_optimizer.state[parameter][key]
    return safe_get_full_optimizer_state(parameter, key)


def _set_moment(engine: Any, parameter: Any, moment: Tensor, key: str) -> None:
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    if engine.zero_optimization_stage() == 0:
        engine.basic_optimizer.state[parameter][key].copy_(moment)
    elif not _is_partitioned(parameter):
        safe_set_full_optimizer_state(parameter, moment, key)
    else:  # DeepSpeed's setter for whole tensors accepts only tensors that divide evenly among the workers
        size, rank = parameter.ds_tensor.numel(), torch.distributed.get_rank()
        padded = torch.nn.functional.pad(moment.flatten(), (0, size * (rank + 1)))
        safe_set_local_optimizer_state(parameter, padded[size * rank : size * (rank + 1)], key)
