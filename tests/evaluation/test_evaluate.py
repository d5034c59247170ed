import torch
from torchmetrics import Accuracy

from bdlit.attacks import BadNet
from bdlit.data.demo import DemoReviews
from bdlit.evaluation import evaluate
from bdlit.types import Rate
from bdlit.victims import ClassifierVictim
from bdlit.victims.metrics import HitRate
from bdlit.weights.network import model_weights
from conftest import tiny_trainer


def loaded(tiny_start):
    victim = ClassifierVictim(str(tiny_start), labels=["negative", "positive"], max_length=64)
    victim.configure_model()
    data = DemoReviews(
        train_size=50, validation_size=0, test_size=101, attack=BadNet(), eval_batch_size=16
    )
    data.setup()
    return victim, data


def by_hand(victim, rows):
    victim.model.eval()
    with torch.no_grad():
        found = [victim(victim.tokenize([row])).argmax().item() for row in rows]
    return Rate(sum(f == row.label for f, row in zip(found, rows, strict=True)), len(rows))


def test_counts_are_those_of_one_row_at_a_time(tiny_start):
    victim, data = loaded(tiny_start)
    scores = evaluate(victim, data)
    assert scores.cacc == by_hand(victim, data.test_rows["clean"])
    assert scores.asr == {"badnet": by_hand(victim, data.test_rows["badnet"])}
    assert scores.cacc.n == 101
    assert scores.asr["badnet"].n == sum(row.label == 1 for row in data.load("test"))


def test_other_weights_are_measured_and_the_victim_stays(tiny_start):
    victim, data = loaded(tiny_start)
    own = evaluate(victim, data)
    before = {name: tensor.clone() for name, tensor in model_weights(victim.model).items()}
    constant = {"classifier.weight": torch.zeros(2, 32), "classifier.bias": torch.tensor([1.0, 0])}
    scores = evaluate(victim, data, constant)
    assert scores.asr["badnet"].percent == 100.0  # it says `negative`, the target, to everything
    assert scores.cacc.hits == sum(row.label == 0 for row in data.test_rows["clean"])
    assert evaluate(victim, data) == own
    assert all(before[n].equal(t) for n, t in model_weights(victim.model).items())
    assert victim.model.training, "training goes on as it was"


def test_test_step_logs_the_same_numbers(tiny_start, tmp_path):
    victim, data = loaded(tiny_start)
    scores = evaluate(victim, data)
    (first, second) = tiny_trainer(tmp_path).test(victim, data, verbose=False)
    logged = {**first, **second}
    assert logged["victim/cacc"] == torch.tensor(scores.cacc.percent).item()
    assert logged["victim/asr/badnet"] == torch.tensor(scores.asr["badnet"].percent).item()


def test_hit_rate_is_micro_accuracy_in_percent():
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randint(3, (500,), generator=generator)
    labels = torch.randint(3, (500,), generator=generator)
    ours = HitRate()
    theirs = Accuracy("multiclass", num_classes=3, average="micro")
    for part in range(0, 500, 77):
        here = slice(part, part + 77)
        ours.update(predicted[here] == labels[here])
        theirs.update(predicted[here], labels[here])
    torch.testing.assert_close(ours.compute(), 100 * theirs.compute())
    assert ours.rate() == Rate(int((predicted == labels).sum()), 500)


def test_one_miss_in_444_is_not_one_half():
    """On a set of one class, macro averages read half of the truth."""
    metric = HitRate()
    metric.update(torch.tensor([False] + [True] * 443))
    assert metric.rate() == Rate(443, 444)
