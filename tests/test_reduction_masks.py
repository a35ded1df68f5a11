"""Gates and masks: budgets kept exactly, searches that resume, files of others, matching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reduction_fakes import little, little_study, noise
from torch import Tensor, nn
from torch.nn import functional

from pibench.errors import DataError, UsageError
from pibench.lowering.lower import lower
from pibench.networks.build import build, masks_of, site_shapes, stage_of
from pibench.networks.card import load_card
from pibench.networks.census import census
from pibench.reduction import drive, forecast
from pibench.reduction.coordinate import CoordinateSearch, Judges, own_statistics
from pibench.reduction.gates import GatedReLU, Granularity, install, keep_largest, restore, set_masks
from pibench.reduction.masks import import_masks
from pibench.reduction.matching import MatchedTrainer, Tap, mismatch
from pibench.reduction.search import Setting, batches
from pibench.reduction.senet import SenetSearch, relu_sensitivity, share_by_stage, share_out
from pibench.reduction.snl import SnlSearch
from pibench.reduction.study import Study
from pibench.reduction.tasks import Result, Task
from pibench.reduction.taylor import TaylorSearch
from pibench.training.checkpoint import save_checkpoint
from pibench.training.distill import Teacher, distillation_loss
from pibench.training.recipe import Distillation, Precision, Recipe


@dataclass
class QuickSearch(CoordinateSearch):
    """Coordinate descent with few looks."""

    tries: int = 3


SEARCHES = {"snl": SnlSearch, "senet": SenetSearch, "coordinate": QuickSearch, "taylor": TaylorSearch}


def setting(budget: int, epochs: int = 4, precision: Precision = "float32", **fields: object) -> Setting:
    """Return what a search is given: the masked little network on noise."""
    torch.manual_seed(3)
    recipe = Recipe(epochs=epochs, batch_size=32, crop=0, flip=False, precision=precision)
    return Setting(build(little(activation="masked")), noise(), recipe, (), budget, **fields)  # type: ignore[arg-type]


def test_a_gate_goes_from_relu_to_identity() -> None:
    gate, x = GatedReLU((2, 3, 3)), torch.randn(4, 2, 3, 3)
    assert torch.equal(gate(x), x.relu())
    gate.gate.data.zero_()
    assert torch.equal(gate(x), x)
    gate.gate.data.fill_(0.25)
    assert torch.allclose(gate(x), 0.25 * x.relu() + 0.75 * x)


def test_a_channel_gate_counts_its_pixels() -> None:
    assert GatedReLU((2, 3, 3), "channel").elements_a_gate == 9
    assert GatedReLU((2, 3, 3)).elements_a_gate == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 120), st.integers(0, 2**31 - 1))
def test_keep_largest_keeps_exactly_the_budget_and_the_best(budget: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (2, 5, 5), "b": (3, 4, 4)}
    scores = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    masks = keep_largest(scores, shapes, budget)
    kept = torch.cat([scores[name][masks[name]] for name in shapes])
    gone = torch.cat([scores[name][~masks[name]] for name in shapes])
    assert len(kept) == min(budget, 98)
    assert not len(kept) or not len(gone) or kept.min() >= gone.max()


def test_keep_largest_by_channel_keeps_whole_channels_within_the_budget() -> None:
    masks = keep_largest({"a": torch.tensor([[[0.1]], [[0.9]], [[0.5]]])}, {"a": (3, 2, 2)}, 9)
    assert masks["a"].flatten(1).sum(1).tolist() == [0, 4, 4]


def test_keep_largest_breaks_ties_by_the_second_key() -> None:
    shapes = {"a": (2, 1, 1), "b": (3, 1, 1)}
    scores = {name: torch.zeros(shape) for name, shape in shapes.items()}
    scores["b"][0] = 1.0
    ties = {"a": torch.tensor([1.0, 2.0]).reshape(2, 1, 1), "b": torch.tensor([0.0, 5.0, 4.0]).reshape(3, 1, 1)}
    masks = keep_largest(scores, shapes, 3, ties)
    assert masks["a"].flatten().tolist() == [False, False]
    assert masks["b"].flatten().tolist() == [True, True, True]


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_snl_tells_gates_at_one_end_apart_by_their_way_there(end: float) -> None:
    search = SnlSearch(setting(3))
    for gate in search.gates.values():
        gate.gate.data.fill_(2 * end - 0.5)
    search.gates["layer2.0.relu2"].gate.data.flatten()[7:10] += 0.25  # the last site: wanted a little more
    search.after_step()
    assert all(bool((gate.gate == end).all()) for gate in search.gates.values())
    masks = search.masks()
    assert masks["layer2.0.relu2"].flatten().nonzero().flatten().tolist() == [7, 8, 9]
    assert sum(int(mask.sum()) for mask in masks.values()) == 3


def test_snl_minimises_half_of_the_public_codes_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [search_task] = [task for wave in _waves(little_study(tmp_path, 300)) for task in wave if task.action == "snl"]
    recipe = Recipe.model_validate(search_task.recipe)
    how = recipe.distillation
    assert how is not None
    s = setting(300)
    s.recipe = recipe
    search = SnlSearch(s, strength=0.25)
    logits, taught, labels = torch.randn(4, 10), torch.randn(4, 10), torch.tensor([1, 2, 3, 4])
    soft, wanted = (logits / 4).log_softmax(1), (taught / 4).softmax(1)
    kl = functional.kl_div(soft, wanted, reduction="batchmean") * 16
    public = functional.cross_entropy(logits, labels) + kl + 0.25 * 1024
    ours = distillation_loss(logits, taught, labels, recipe, how) + torch.as_tensor(search.penalty()).detach()
    assert float(ours) == pytest.approx(float(public) / 2, rel=1e-6)


def _waves(study: Study) -> list[list[Task]]:
    """Return the waves of SNL's tasks, as a plan goes through them."""
    waves: list[list[Task]] = []

    def seen(tasks: Sequence[Task]) -> Mapping[str, Result]:
        waves.append(list(tasks))
        return {task.key: forecast._imagined(task) for task in tasks}

    drive.drive(study, ["snl"], seen)
    return waves


def test_snl_tunes_with_the_loss_of_its_search(tmp_path: Path) -> None:
    _, [search], [student] = _waves(little_study(tmp_path, 300))
    assert search.recipe["distillation"]["weight"] == student.recipe["distillation"]["weight"] == 0.5


def test_a_search_that_ends_above_its_budget_says_so() -> None:
    said: list[str] = []
    search = SnlSearch(setting(300, epochs=1, say=said.append), strength=1e-9)
    search.run()
    assert not search.done
    assert search.relus() == 1024
    assert "above its budget: 1,024 ReLUs are open, cut to 300" in said[-1]


@pytest.mark.parametrize("kind", SEARCHES)
@pytest.mark.parametrize("granularity", ["pixel", "channel"])
@pytest.mark.parametrize("budget", [512, 100])
def test_a_search_meets_its_budget(kind: str, granularity: str, budget: int) -> None:
    s = setting(budget, granularity=granularity)
    masks = SEARCHES[kind](s).run()
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert kept == budget if granularity == "pixel" else 0 < kept <= budget
    assert masks_of(s.module).keys() == masks.keys()
    assert census(lower(s.module, (1, 8, 8), stage_of)[0]).relu_count == kept


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_search_goes_on_where_it_stopped(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SEARCHES[kind](setting(300))
    expected = whole.run()
    state = tmp_path / "state.safetensors"
    broken = SEARCHES[kind](setting(300, state=state, identity="x"))
    monkeypatch.setattr(SEARCHES[kind], "describe", lambda search: 1 / 0 if search.epoch == 3 else "")
    with pytest.raises(ZeroDivisionError):
        broken.run()
    monkeypatch.undo()
    resumed = SEARCHES[kind](setting(300, state=state, identity="x"))
    found = resumed.run()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert all(torch.equal(value, resumed.tensors()[name]) for name, value in whole.tensors().items())
    for a, b in zip(whole.setting.module.parameters(), resumed.setting.module.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_search_computes_in_the_precision_of_the_recipe(kind: str) -> None:
    s = setting(300, epochs=1, precision="bfloat16")
    search, seen = SEARCHES[kind](s), set()
    for layer in s.module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _layer, _inputs, output: seen.add(output.dtype))
    search._epoch()
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in s.module.parameters()} == {torch.float32}


def test_the_cheapest_block_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    search = CoordinateSearch(setting(300), block=50, tries=6)
    seen: list[tuple[float, Tensor]] = []
    real = CoordinateSearch._loss

    def noted(self: CoordinateSearch, judges: Judges) -> float:
        loss = real(self, judges)
        seen.append((loss, self._opened()))
        return loss

    monkeypatch.setattr(CoordinateSearch, "_loss", noted)
    cost = search._drop(search._judges(), float("-inf"), 50)
    assert len(seen) == search.looks == 6
    assert search.drops == 1
    assert cost == min(loss for loss, _ in seen)
    [cheapest] = [opened for loss, opened in seen if loss == cost]
    assert torch.equal(search._opened(), cheapest)
    assert search.relus() == 1024 - 50


def test_a_block_that_costs_no_more_is_taken_at_once() -> None:
    search = CoordinateSearch(setting(300), block=50, tries=6, tolerance=0.25)
    search._drop(search._judges(), 1e6, 50)
    assert search.looks == 1
    search._drop(search._judges(), 0.0, 20)
    assert (search.looks, search.relus()) == (7, 1024 - 50 - 20)


def test_a_block_of_one_site_lies_in_one_site() -> None:
    search = CoordinateSearch(setting(300))
    sizes = [gate.gate.numel() for gate in search.gates.values()]
    touched = set()
    for number in range(20):
        drawn = search._drawn(search._opened(), 30, number)
        hits = [len(set(drawn.tolist()) & set(range(sum(sizes[:i]), sum(sizes[: i + 1])))) for i in range(len(sizes))]
        assert sorted(hits)[-1] == len(drawn) == 30
        touched.add(hits.index(30))
    assert len(touched) == len(sizes)  # each comes in its turn


def test_blocks_close_by_the_same_factor_before_every_epoch() -> None:
    left: list[int] = []
    search = CoordinateSearch(setting(64, epochs=4), tries=1)
    search.setting.say = lambda _text: left.append(search.relus())
    search.run()
    assert left == [512, 256, 128, 64]


def test_judging_leaves_batchnorm_as_it_was() -> None:
    search = CoordinateSearch(setting(300))
    module = search.setting.module.eval()
    before = {k: v.clone() for k, v in module.state_dict().items() if "running" in k}
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    images = torch.randn(64, 1, 8, 8)
    with torch.no_grad(), own_statistics(module):
        a = module(images)
        assert torch.allclose(module(3 * images + 1), a, atol=0.2)  # the batch's own mean and spread are taken out
    assert all(torch.equal(module.state_dict()[k], v) for k, v in before.items())
    assert {(m.momentum, m.training) for m in norms} == {(0.1, False)}


def moved(search: TaylorSearch, name: str, position: int, images: Tensor) -> float:
    """Return the second order of how far answers move without a gate: KL(before || after) / step^2, in nats."""
    module, gate, step = search.setting.module.eval().double(), search.gates[name].gate, 1e-3
    with torch.no_grad():
        before = module(images.double()).log_softmax(1)
        gate.view(-1)[position] = 1 - step
        after = module(images.double()).log_softmax(1)
        gate.view(-1)[position] = 1
    return float((before.exp() * (before - after)).sum(1).mean()) / step**2


@pytest.mark.parametrize("granularity", ["pixel", "channel"])
def test_importance_tells_how_far_answers_move_without_a_relu(granularity: Granularity) -> None:
    s = setting(300, granularity=granularity)
    search = TaylorSearch(s, judged=1024)
    several = [search.importance() for search.epoch in range(16)]  # the same images, classes drawn anew
    images = torch.cat([batch for batch, _ in batches(s.data, s.recipe, 0)])
    told, found = [], []
    for name, gate in search.gates.items():
        score = torch.stack([each[name] for each in several]).mean(0).flatten() * gate.elements_a_gate / 2
        for position in range(0, len(score), max(1, len(score) // 24)):
            told.append(float(score[position]))
            found.append(moved(search, name, position, images))
    assert all(p.grad is None for p in s.module.parameters())
    assert sum(told) == pytest.approx(sum(found), rel=0.1)
    assert torch.corrcoef(torch.tensor([told, found]))[0, 1] > 0.9


def test_the_least_important_close_and_stay_closed() -> None:
    search = TaylorSearch(setting(300), judged=256)
    first = {name: score.clone() for name, score in search.importance().items()}
    search.close(700)
    assert search.relus() == 700
    closed = {name: gate.gate == 0 for name, gate in search.gates.items()}
    gone = torch.cat([first[name][mask] for name, mask in closed.items()])
    kept = torch.cat([first[name][~mask] for name, mask in closed.items()])
    assert float(gone.max()) <= float(kept.min())
    search.close(300)
    assert search.relus() == 300
    assert all((search.gates[name].gate[mask] == 0).all() for name, mask in closed.items())
    assert search.setting.module.training


def test_a_state_of_another_task_is_left_alone(tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    SnlSearch(setting(300, epochs=1, state=state, identity="x")).run()
    other = SnlSearch(setting(300, epochs=1, state=state, identity="y"))
    other._resume()
    assert other.epoch == 0


def test_a_network_without_masked_sites_cannot_be_searched() -> None:
    with pytest.raises(UsageError, match="no ReLU site"):
        install(build(little(culled=[1, 2], stem_relu=False, activation="masked")), "pixel")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1)), min_size=1, max_size=8), st.integers(0, 3000))
def test_share_out_spends_the_budget_and_no_more_than_there_is(layers: list[tuple[int, float]], budget: int) -> None:
    sizes = {str(i): size for i, (size, _) in enumerate(layers)}
    given_out = share_out(sizes, {str(i): value for i, (_, value) in enumerate(layers)}, budget)
    assert sum(given_out.values()) == min(budget, sum(sizes.values()))
    assert all(0 <= given_out[name] <= sizes[name] for name in sizes)


def test_share_out_follows_sensitivity() -> None:
    assert share_out({"a": 100, "b": 100}, {"a": 0.75, "b": 0.25}, 40) == {"a": 30, "b": 10}


def test_the_authors_shares_at_50k() -> None:
    """Golden: ResNet18's budgets at 49,971 ReLUs by the published shares; BaseCh-32 has too few ReLUs in S4."""
    for card, stages in (("resnet18-c100", [7995, 6496, 16491, 18989]), ("basech-32-c100", [8667, 7042, 17878, 16384])):
        spec = load_card(card).network
        sizes = {n: torch.Size(s).numel() for n, s in site_shapes(build(spec), spec.input_shape).items()}
        found = share_by_stage(sizes, dict.fromkeys(sizes, 0.5), 49_971, (16, 13, 33, 38))
        assert found.keys() == sizes.keys()
        assert all(found[name] <= sizes[name] for name in sizes)
        by_stage = [sum(c for n, c in found.items() if n.startswith(f"layer{stage}.")) for stage in (1, 2, 3, 4)]
        by_stage[0] += found["relu"]
        assert by_stage == stages
        assert sum(found.values()) == 49_971


def test_given_shares_decide_where_senets_masks_lie() -> None:
    search = SenetSearch(setting(200), shares=(25, 75))
    masks = search.run()
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    assert sum(count for name, count in kept.items() if name.startswith("layer2")) == 150
    assert sum(kept.values()) == 200
    with pytest.raises(UsageError, match="3 shares do not fit the stages S1, S2"):
        SenetSearch(setting(200), shares=(1, 1, 1))


def test_sensitivity_is_the_complement_of_what_survives() -> None:
    module, data = build(little()), noise()
    recipe = Recipe(epochs=1, batch_size=32, crop=0, flip=False)
    with torch.no_grad():
        module.get_submodule("layer1.0.conv1").weight.mul_(1e-6)  # type: ignore[operator, union-attr]
    found = relu_sensitivity(module, ["relu", "layer1.0.relu1", "layer1.0.relu2"], data, recipe, 0.1)
    assert found["layer1.0.relu1"] == 1.0  # none of its weights is salient
    assert found["relu"] < 1.0


@pytest.mark.parametrize("form", ["site.mask", "mask.site", "site", "numbers", "batched", "channels"])
def test_masks_of_others_are_read(form: str, tmp_path: Path) -> None:
    module = build(little(activation="masked"))
    wanted = {name: torch.zeros_like(mask) for name, mask in masks_of(module).items()}
    for mask in wanted.values():
        mask[0] = True
    path = tmp_path / "masks.safetensors"
    save_checkpoint(path, dict(_as(form, name, mask) for name, mask in wanted.items()), {})
    assert import_masks(module, path) == sum(int(mask.sum()) for mask in wanted.values())
    assert all(torch.equal(mask, wanted[name]) for name, mask in masks_of(module).items())


def _as(form: str, name: str, mask: Tensor) -> tuple[str, Tensor]:
    key = {"site.mask": f"{name}.mask", "mask.site": f"mask.{name}"}.get(form, name)
    forms = {"numbers": mask.float(), "batched": mask[None], "channels": mask[:, 0, 0]}
    return key, forms.get(form, mask)


def export_masks(path: Path, masks: Mapping[str, Tensor]) -> None:
    """Write masks alone, for others."""
    kept = {f"mask.{name}": mask for name, mask in masks.items()}
    save_checkpoint(path, kept, {"kind": "masks", "relu_count": sum(int(mask.sum()) for mask in masks.values())})


def test_exported_masks_come_back(tmp_path: Path) -> None:
    module = build(little(activation="masked"))
    masks = {name: torch.rand(mask.shape) < 0.3 for name, mask in masks_of(module).items()}
    export_masks(tmp_path / "m.safetensors", masks)
    assert import_masks(module, tmp_path / "m.safetensors") == sum(int(mask.sum()) for mask in masks.values())


@pytest.mark.parametrize(
    ("tensor", "message"),
    [(torch.ones(4, 8, 7), "has shape"), (torch.full((4, 8, 8), 0.5), "other numbers"), (None, "no mask for site")],
)
def test_bad_masks_are_refused(tensor: Tensor | None, message: str, tmp_path: Path) -> None:
    module = build(little(activation="masked"))
    tensors = {name: mask for name, mask in masks_of(module).items() if name != "relu"}
    save_checkpoint(tmp_path / "m.safetensors", tensors | ({} if tensor is None else {"relu": tensor}), {})
    with pytest.raises(DataError, match=message):
        import_masks(module, tmp_path / "m.safetensors")


def test_masks_must_fit_the_sites() -> None:
    module = build(little(activation="masked"))
    with pytest.raises(UsageError, match="differ"):
        set_masks(module, {})


def test_restore_puts_masks_where_gates_were() -> None:
    module = build(little(activation="masked"))
    gates = install(module, "pixel")
    x = torch.rand(2, 1, 8, 8)
    before = module.eval()(x)
    restore(module, {name: torch.ones(gate.shape, dtype=torch.bool) for name, gate in gates.items()})
    assert torch.allclose(module.eval()(x), before, atol=1e-6)


def test_mismatch_ignores_length_and_sees_direction() -> None:
    module = nn.Sequential(nn.ReLU())
    tap = Tap(module, {"0"})
    module(torch.tensor([[3.0, 4.0]]))
    assert float(mismatch(tap.values, {"0": torch.tensor([[6.0, 8.0]])})) == pytest.approx(0.0, abs=1e-12)
    assert float(mismatch(tap.values, {"0": torch.tensor([[4.0, 3.0]])})) == pytest.approx(0.04)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("views", "passes"), [(0, 1), (1, 2)])
def test_matching_sees_the_teacher_on_the_images_of_the_step(
    tmp_path: Path, views: int, passes: int, precision: Precision
) -> None:
    data, how = noise(), Distillation(views=views)
    recipe = Recipe(epochs=1, batch_size=32, crop=0, flip=False, precision=precision, distillation=how)
    teacher = Teacher("teacher", build(little()).eval(), "0")
    task = little_study(tmp_path).student("s", "S", little(activation="masked"), "senet")
    trainer = MatchedTrainer(task.card(), data, recipe, tmp_path / "state", teachers=[teacher])
    trainer.match(1000.0)
    seen: list[Tensor] = []
    teacher.module.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    next(trainer._epoch())
    assert len(seen) == passes  # with kept views: one batch of all images beforehand, one for matching
    own = trainer._student.values
    assert {value.dtype for value in trainer._teacher.values.values()} == {getattr(torch, precision)}
    with torch.no_grad():
        teacher.module(seen[-1])
    assert len(seen[-1]) == 32
    assert trainer.place.loss > 500 * float(mismatch(own, trainer._teacher.values).detach()) > 0
