"""A language model's twin with random weights: the same architecture and tokenizer, nothing learnt.

    python benchmarks/untrained_lm.py runs/lm/trained runs/lm/untrained

What alignment owes to what the language model knows is the difference between the two.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of the trained model")
    parser.add_argument("output", type=Path, help="folder of its twin")
    parser.add_argument("--seed", type=int, default=2026)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    twin = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(options.source))
    twin.save_pretrained(options.output)
    AutoTokenizer.from_pretrained(options.source).save_pretrained(options.output)


if __name__ == "__main__":
    main()
