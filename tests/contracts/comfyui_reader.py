"""Runs beside ComfyUI's code, in a process of its own, and prints as JSON what that code finds in files of ours.

    comfyui_reader.py keys SHAPES.json LORA...    the keys and shapes of a single file, and those of adapters of it:
                                                  what is missing, what is left over
    comfyui_reader.py predict FILE LORA INPUTS OUTPUTS    what the loaded model predicts, without and with the adapter

Shapes are enough for its detection and for loading: models are made without memory.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import comfy.cli_args  # pyright: ignore[reportMissingImports]

comfy.cli_args.args.cpu = True

import comfy.lora  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.model_detection  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.sd  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.utils  # noqa: E402  # pyright: ignore[reportMissingImports]
import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

META = torch.device("meta")
Shapes = dict[str, list[int]]


def without_memory(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Tensors that have a shape and no numbers."""
    return {name: torch.empty(shape, device=META, dtype=torch.float16) for name, shape in shapes.items()}


def compared(module: torch.nn.Module, given: dict[str, torch.Tensor]) -> dict[str, list[str]]:
    """What a module of ComfyUI's has no value for, what it does not take, and where shapes differ."""
    wanted = module.state_dict()
    both = wanted.keys() & given.keys()
    return {
        "missing": sorted(wanted.keys() - given.keys()),
        "unexpected": sorted(given.keys() - wanted.keys()),
        "differ": sorted(name for name in both if wanted[name].shape != given[name].shape),
        "same": [str(len(both))],
    }


def detected(shapes: Shapes) -> tuple[Any, dict[str, torch.Tensor], str]:
    """The kind of model that it takes the file for, the file, and the prefix of the UNet."""
    tensors = without_memory(shapes)
    prefix = comfy.model_detection.unet_prefix_from_state_dict(tensors)
    config = comfy.model_detection.model_config_from_unet(tensors, prefix)
    assert config is not None, "no kind of model that it knows"
    config.set_inference_dtype(torch.float16, None)
    return config, tensors, prefix


def made(config: Any, tensors: dict[str, torch.Tensor], prefix: str) -> tuple[Any, Any]:
    """The model and the text encoders of that kind, without memory."""
    target = config.clip_target(state_dict=tensors)
    clip = target.clip(device=META, dtype=torch.float16, model_options={})
    return config.get_model(tensors, prefix, device=META), clip


def checkpoint(shapes: Shapes) -> dict[str, Any]:
    """Each part of a single file."""
    config, tensors, prefix = detected(shapes)
    model, clip = made(config, tensors, prefix)
    unet = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    found = {"unet": compared(model.diffusion_model, config.process_unet_state_dict(unet))}
    prefixes = dict.fromkeys(config.vae_key_prefix, "")
    vae = config.process_vae_state_dict(
        comfy.utils.state_dict_prefix_replace(dict(tensors), prefixes, filter_keys=True)
    )
    # It makes a VAE with memory, of the one width that it knows, and puts the given values in.
    empty = {name: torch.zeros(tensor.shape) for name, tensor in vae.items()}
    found["vae"] = compared(comfy.sd.VAE(sd=empty).first_stage_model, vae)
    found["clip"] = compared(clip, config.process_clip_state_dict(dict(tensors)))
    return {"kind": type(config).__name__, "type": model.model_type.name, **found}


def adapters(shapes: Shapes, files: list[str]) -> dict[str, Any]:
    """The keys of each adapter's file that it finds a layer for."""
    model, clip = made(*detected(shapes))
    places = comfy.lora.model_lora_keys_unet(model, {})
    places = comfy.lora.model_lora_keys_clip(clip, places)
    sizes = {**model.state_dict(), **clip.state_dict()}
    found: dict[str, Any] = {}
    for file in files:
        tensors = comfy.lora_convert.convert_lora(load_file(file))
        loaded = comfy.lora.load_lora(tensors, places, log_missing=False)
        taken = {key for patch in loaded.values() for key in patch.loaded_keys}
        odd = [name for name, patch in loaded.items() if name not in sizes or not fits(patch, sizes[name])]
        named = {name for name in places if f"{name}.alpha" in tensors or f"{name}.dora_scale" in tensors}
        taken |= {f"{name}.{kind}" for name in named for kind in ("alpha", "dora_scale")}
        found[file] = {"layers": len(loaded), "left": sorted(tensors.keys() - taken), "odd": odd}
    return found


def fits(patch: Any, weight: torch.Tensor) -> bool:
    """Whether an adapter's two matrices are of a weight's size."""
    up, down = patch.weights[:2]
    return up.shape[0] == weight.shape[0] and down.flatten(1).shape[1] == weight.flatten(1).shape[1]


def predict(file: str, lora: str, inputs: str, outputs: str) -> dict[str, Any]:
    """Noise predictions of a loaded file for given latents, times and prompts, before and after an adapter is added."""
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(file)
    given, made_here = load_file(inputs), {}
    for name in ("plain", "adapted"):
        if name == "adapted":
            model, clip = comfy.sd.load_lora_for_models(model, clip, comfy.utils.load_torch_file(lora), 1.0, 1.0)
        unet = model.patch_model(device_to=torch.device("cpu")).diffusion_model.float()
        with torch.no_grad():
            made_here[name] = unet(given["noisy"], given["timesteps"], context=given["context"])
        clip.patcher.patch_model(device_to=torch.device("cpu"))
        text = clip.cond_stage_model.clip_l.float()
        with torch.no_grad():
            made_here[f"{name}-text"] = text([given["tokens"][0].tolist()])[0]
        model.unpatch_model()
        clip.patcher.unpatch_model()
    with torch.no_grad():
        made_here["pixels"] = vae.first_stage_model.float().decode(given["noisy"])
    save_file({name: tensor.float().contiguous() for name, tensor in made_here.items()}, outputs)
    return {"made": sorted(made_here)}


def main() -> None:
    """Print what was asked for."""
    what, *arguments = sys.argv[1:]
    if what == "predict":
        answer = predict(*arguments)
    else:
        with open(arguments[0]) as stream:
            shapes = json.load(stream)
        answer = {**checkpoint(shapes), "adapters": adapters(shapes, arguments[1:])}
    print(json.dumps(answer))  # noqa: T201 - what is asked for


if __name__ == "__main__":
    main()
