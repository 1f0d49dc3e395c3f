"""A checkpoint larger than the memory allowed, and a process whose peak is measured.

A process's peak is VmHWM: every page that it held at once, mapped files included, which is more than the system
could not have taken back. It is given in MB above what the process held after its imports, and in all.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import tiny
from perdure.models.tensor_files import Blank, write_tensors

DOWN = "model.layers.{}.mlp.down_proj.weight"
SLACK_MB = 200

_FRAME = """
import json, re, sys
import torch
torch.set_num_threads(1)
def status(key):
    return int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read()).group(1)) * 1024 / 1e6
{imports}
before, peaks = status("VmRSS"), {{}}
for name, step in {steps!r}.items():
    open("/proc/self/clear_refs", "w").write("5")  # the peak so far was that of the imports, or of another step
    exec(step)
    peaks[name] = {{"above": status("VmHWM") - before, "all": status("VmHWM")}}
print(json.dumps(peaks))
"""


def write_big(folder: Path, *, layers: int, width: int, inner: int, shards: int) -> int:
    """A bfloat16 Llama of that shape, cheap to write; the size of its largest tensor in bytes."""
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    with torch.device("meta"):
        sizes = {name: tuple(weight.shape) for name, weight in LlamaForCausalLM(config).named_parameters()}
    block = torch.randn(1 << 16, generator=torch.Generator().manual_seed(0)).bfloat16()

    def fill(name: str) -> torch.Tensor:
        numbers = Blank(torch.bfloat16, sizes[name]).nbytes // 2
        return block.repeat(-(-numbers // len(block)))[:numbers].view(sizes[name])

    config.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    names, where = list(sizes), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: Blank(torch.bfloat16, sizes[name]) for name in names[shard::shards]}
        write_tensors(folder / file, part, fill, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return max(Blank(torch.bfloat16, size).nbytes for size in sizes.values())


def peaks_mb(imports: str, steps: dict[str, str]) -> dict[str, dict[str, float]]:
    """The peak of each step of a process's work, in MB: above what its imports took, and in all."""
    code = _FRAME.format(imports=imports, steps=steps)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])
