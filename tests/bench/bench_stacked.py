"""Forty-five networks as one program against the same networks one by one, in ordinary torch, on the same device.

On a CPU: 614 rows x 1,000 genes, hidden 128, 5 epochs, batches of 16 and the mixed loss as the winning entry's; one
architecture in one stack, and with --readers the winning entry's three, five folds to a stack. With --full, on a GPU:
its whole recipe, 3 architectures x 3 schemes x 5 folds, 614 rows x 18,211 genes, 250 epochs; the networks one by one
are timed over a few epochs and scaled up, since they take long.
"""

import argparse
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pertcast.nn.fit import FitSettings, fit_network
from pertcast.nn.fit_stack import fit_stack
from pertcast.nn.losses import make_loss
from pertcast.nn.stacked import Streams
from pertcast.nn.token_stack import TokenNetSettings, TokenStack

ROWS, TYPES, COMPOUNDS, STATISTICS = 614, 6, 146, 64
TARGET = {"cpu": 3.0, "cuda": 10.0}


@dataclass(frozen=True)
class Case:
    """Networks of every reader and scheme, as many members of each as there are subsets of the rows."""

    readers: tuple[str, ...]
    schemes: tuple[tuple[str, ...], ...]
    members: int
    genes: int
    net: TokenNetSettings
    epochs: int
    timed: int  # epochs of the networks one by one that are timed, then scaled to `epochs`
    device: str
    turns: int

    @property
    def networks(self) -> int:
        return len(self.readers) * len(self.schemes) * self.members


NARROW = TokenNetSettings(width=64, hidden=128, head=128, token_dropout=0.3)
WIDE = TokenNetSettings(width=128, hidden=128, head=512, token_dropout=0.3)
READERS = ("lstm", "gru", "cnn")
SCHEMES = (("mean", "sd"), ("mean",), ("mean", "q25", "q75"))  # initial, light, heavy
ONE_KIND = Case(("concat",), SCHEMES[:1], 45, 1000, NARROW, 5, 5, "cpu", 3)
THREE_KINDS = Case(READERS, SCHEMES, 5, 1000, NARROW, 5, 1, "cpu", 1)
WHOLE = Case(READERS, SCHEMES, 5, 18_211, WIDE, 250, 2, "cuda", 1)


class OrdinaryNet(nn.Module):
    """The network of one member as anyone would write it."""

    def __init__(self, reader: str, blocks: tuple[str, ...], net: TokenNetSettings, genes: int):
        super().__init__()
        self.blocks, self.name = blocks, reader
        self.cell_type, self.compound = nn.Embedding(TYPES, net.width), nn.Embedding(COMPOUNDS, net.width)
        self.projections = nn.ModuleList(nn.Linear(STATISTICS, net.width) for _ in blocks)
        if reader == "cnn":
            layers = [nn.Conv1d(net.width, net.hidden, 3, padding=1), nn.GELU()]
            layers += [nn.Conv1d(net.hidden, net.hidden, 3, padding=1), nn.GELU()]
            self.reader = nn.Sequential(*layers)
        elif reader != "concat":
            cell = {"lstm": nn.LSTM, "gru": nn.GRU}[reader]
            self.reader = cell(net.width, net.hidden, num_layers=2, batch_first=True)
        d = (2 + len(blocks)) * (net.width if reader == "concat" else net.hidden)
        self.head = nn.Sequential(
            nn.Dropout(net.token_dropout), nn.BatchNorm1d(d, affine=False), nn.Linear(d, net.head, bias=False),
            nn.BatchNorm1d(net.head), nn.GELU(), nn.Dropout(net.dropout), nn.Linear(net.head, genes),
        )  # fmt: skip

    def forward(self, rows: dict[str, Tensor]) -> Tensor:
        parts = [self.cell_type(rows["cell_type"]), self.compound(rows["compound"])]
        parts += [project(rows[f"{name}.x"]) for name, project in zip(self.blocks, self.projections, strict=True)]
        x = torch.stack(parts, dim=1)  # (n, t, width)
        if self.name == "cnn":
            x = self.reader(x.transpose(1, 2)).transpose(1, 2)
        elif self.name != "concat":
            x = self.reader(x)[0]
        return self.head(x.flatten(1))


def make_data(case: Case) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Draw feature tables by compound, and rows with codes and responses."""
    draw = torch.Generator().manual_seed(0)
    names = sorted({name for scheme in case.schemes for name in scheme})
    tables = {name: torch.randn(COMPOUNDS, STATISTICS, generator=draw) for name in names}
    compound = torch.randint(0, COMPOUNDS, (ROWS,), generator=draw)
    rows = {"cell_type": torch.randint(0, TYPES, (ROWS,), generator=draw), "compound": compound}
    rows |= dict.fromkeys(names, compound)
    return tables, {**rows, "y": torch.randn(ROWS, case.genes, generator=draw)}


def settings_of(case: Case, epochs: int) -> FitSettings:
    return FitSettings(epochs=epochs, batch=16, lr=1e-3, optimizer="adam", weight_decay=0.0, device=case.device)


def subsets(case: Case) -> Tensor:
    """Four fifths of the rows for each member: (members, n)."""
    draw = torch.Generator().manual_seed(1)
    return torch.stack([torch.randperm(ROWS, generator=draw)[: 4 * ROWS // 5] for _ in range(case.members)])


def stacked(case: Case, *, seeds: Sequence[int], epochs: int) -> None:
    """One stack for each architecture and scheme, of the given members."""
    tables, rows = make_data(case)
    tables = {name: table.to(case.device) for name, table in tables.items()}
    loss, which = make_loss("mixed"), subsets(case)[list(seeds)]
    codes, widths = {"cell_type": TYPES, "compound": COMPOUNDS}, dict.fromkeys(tables, STATISTICS)

    def loss_fn(net: TokenStack, part: dict[str, Tensor]) -> Tensor:
        return loss(net(tables, part).flatten(0, 1).float(), part["y"].flatten(0, 1))

    for reader in case.readers:
        for scheme in case.schemes:
            tokens, streams = tuple((name,) for name in scheme), Streams(seeds)
            net = TokenStack(case.net, reader, tokens=tokens, codes=codes, widths=widths, k=case.genes, streams=streams)
            fit_stack(net, rows, loss_fn, settings_of(case, epochs), rows=which, seeds=seeds)


def stacks_of_one(case: Case, *, epochs: int) -> None:
    """The same program, a member at a time."""
    for member in range(case.members):
        stacked(case, seeds=[member], epochs=epochs)


def one_by_one(case: Case, *, epochs: int) -> None:
    """Ordinary networks, trained in turn by the ordinary loop, their features looked up beforehand."""
    tables, rows = make_data(case)
    wide = {f"{name}.x": table[rows["compound"]] for name, table in tables.items()}
    loss, settings = make_loss("mixed"), settings_of(case, epochs)
    for reader in case.readers:
        for scheme in case.schemes:
            data = {"cell_type": rows["cell_type"], "compound": rows["compound"], "y": rows["y"]}
            data |= {f"{name}.x": wide[f"{name}.x"] for name in scheme}
            for member, which in enumerate(subsets(case)):
                net = OrdinaryNet(reader, scheme, case.net, case.genes)
                given = {name: tensor[which] for name, tensor in data.items()}
                fit_network(net, given, lambda n, part: loss(n(part).float(), part["y"]), settings, seed=member)


def seconds(work: Callable[[], None], device: str) -> float:
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def report(case: Case) -> None:
    took = {"stacked": 0.0, "one by one": 0.0, "stacks of 1": 0.0}
    stacked(case, seeds=[0], epochs=1)  # whatever is slow the first time
    for _ in range(case.turns):  # taken in turns, so that a busy moment hits all
        took["stacked"] += seconds(lambda: stacked(case, seeds=range(case.members), epochs=case.epochs), case.device)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        scale = case.epochs / case.timed
        took["one by one"] += scale * seconds(lambda: one_by_one(case, epochs=case.timed), case.device)
        took["stacks of 1"] += scale * seconds(lambda: stacks_of_one(case, epochs=case.timed), case.device)
    kinds, ours = ", ".join(case.readers), took["stacked"]
    print(f"{case.networks} networks ({kinds}), {ROWS} x {case.genes}, {case.epochs} epochs on {case.device}:")
    for name, total in took.items():
        print(f"  {name:12s} {total / case.turns:8.1f} s, ratio {total / ours:.1f}")
    print(f"  target of one by one at least {TARGET[case.device]}; host memory of the stack {peak:.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readers", action="store_true", help="the winning entry's three architectures too")
    parser.add_argument("--full", action="store_true", help="the winning entry's whole recipe instead, on a GPU")
    chosen = parser.parse_args()
    for case in [WHOLE] if chosen.full else [ONE_KIND, *([THREE_KINDS] if chosen.readers else [])]:
        report(case)


if __name__ == "__main__":
    main()
