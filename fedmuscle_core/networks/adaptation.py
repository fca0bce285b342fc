"""How a pretrained backbone is fine-tuned: all of it, its last stages, by low-rank updates (LoRA), or not at all."""

import warnings

from ..checks import one_of

ADAPTATIONS = ("full", "lora", "frozen", "last")
LORA_MODULES = ("q_proj", "v_proj", "query", "value", "q_lin", "v_lin")   # queries and values, as the architectures name them


def adapt(backbone, adaptation, rank=16):
    """`backbone` itself, changed in place: "full", every parameter learns; "frozen", none; "lora", a rank-`rank` update beside
    each query and value projection learns, scaled by 1, and nothing else; "last", of a `last.Tail`: "lora" where it has such
    projections, else "full".

    Rank 16 is the paper's; which modules and which scale were not found in the sources: our choice.  Raises ValueError for a
    backbone without such projections.
    """
    one_of("adaptation", adaptation, ADAPTATIONS)
    if adaptation == "last":
        adapt(backbone.backbone, "lora" if has_projections(backbone) else "full", rank)
    if adaptation == "frozen":
        backbone.requires_grad_(False)
    if adaptation == "lora":
        if not has_projections(backbone):
            raise ValueError(f"adaptation: got 'lora' for {type(backbone).__name__}, expected 'full' or 'frozen': it has none "
                             f"of the modules {LORA_MODULES}")
        from peft import LoraConfig, inject_adapter_in_model  # takes seconds to import

        config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=list(LORA_MODULES))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inject_adapter_in_model(config, backbone)
    return backbone


def has_projections(backbone):
    """Whether it has any of LORA_MODULES."""
    return any(name.rsplit(".", 1)[-1] in LORA_MODULES for name, _ in backbone.named_modules())
