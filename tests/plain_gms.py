"""The search of GMS, restated plainly: deep copies, no cache, no early end."""

import copy
import itertools
from fractions import Fraction

import torch

from bdlit.defenses.modules import ARCHITECTURES


def plain_hybrid(model, donor, modules, layers, prefix):
    """A deep copy with the donor's modules, by their names in the module tree."""
    hybrid = copy.deepcopy(model)
    types = ARCHITECTURES[model.config.model_type]
    names = [name for key in modules for name in types[key].split("+")]
    for name, layer in itertools.product(names, layers):
        path, _, part = name.partition("[")
        ours = hybrid.get_submodule(f"{prefix}.{layer}.{path}")
        theirs = donor.get_submodule(f"{prefix}.{layer}.{path}")
        for name, weight in ours.named_parameters():
            given = theirs.get_parameter(name)
            with torch.no_grad():
                if not part:
                    weight.copy_(given)
                    continue
                at = int(part[0])
                packed_columns = type(ours).__name__ == "Conv1D" and weight.dim() == 2
                dim = 1 if packed_columns else 0
                third = weight.shape[dim] // 3
                weight.narrow(dim, at * third, third).copy_(given.narrow(dim, at * third, third))
    return hybrid


def plain_search(model, donor, suspect, clean, prefix, count, patience=5, alpha=Fraction(2, 5)):
    """The published rule for encoders, with an order for ties; `count(model, rows)` gives hits."""
    kinds = sorted(ARCHITECTURES[model.config.model_type])
    before = count(model, suspect), count(model, clean)

    def look(modules, layers):
        hybrid = plain_hybrid(model, donor, modules, layers, prefix)
        now = count(hybrid, suspect), count(hybrid, clean)
        d_asr = Fraction(before[0] - now[0], before[0])
        d_acc = Fraction(before[1] - now[1], before[1]) if before[1] else Fraction(0)
        return now, (1 - alpha) * d_asr + alpha * (1 - d_acc)

    modules, layers = list(kinds), list(range(model.config.num_hidden_layers))
    now, value = look(modules, layers)
    best = (value, modules, layers)
    steps, waited = [], 0
    while modules and layers:
        tried = []
        for gone in modules:
            tried.append(([m for m in modules if m != gone], layers))
        for gone in layers:
            tried.append((modules, [n for n in layers if n != gone]))
        looks = [look(*state) for state in tried]
        top = 0
        for i, (_, found) in enumerate(looks):
            if found > looks[top][1]:
                top = i
        steps.append(([hits for hits, _ in looks], top))
        modules, layers = tried[top]
        if looks[top][1] > best[0]:
            best, waited = (looks[top][1], modules, layers), 0
        elif looks[top][1] > value:
            waited = 0
        else:
            waited += 1
        value = looks[top][1]
        if waited >= patience:
            break
    return {"steps": steps, "best": best, "start": now, "victim": before}
