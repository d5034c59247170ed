"""Features of classes, and the class that they give away."""

from types import SimpleNamespace

import pytest
import torch

from bdlit.defenses.msd.features import _feature
from bdlit.defenses.msd.role_assignment import distance_to_others, suspicion


def test_the_suspected_class_by_hand():
    clean = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -3.0]])
    # To classes 1 and 2, 0 and 2, 0 and 1; a model's own class never counts.
    dummy = torch.tensor([[5.0, 0.0], [-1.0, 0.0], [0.0, 2.0]])
    assert distance_to_others(dummy[0], clean, 0) == pytest.approx(1 + 1)
    assert distance_to_others(dummy[1], clean, 1) == pytest.approx(2 + 1)
    assert distance_to_others(dummy[2], clean, 2) == pytest.approx(1 + 0)
    alone = suspicion([dummy], [clean])
    assert alone.target == 1
    assert alone.distances == pytest.approx((2, 3, 1))
    other = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # 2, 0 + 1, 1 + 0
    both = suspicion([dummy, other], [clean, clean])
    assert both.distances == pytest.approx((4, 4, 2))
    assert both.target == 0  # the first of equals


def test_a_feature_is_the_first_token_or_a_decoders_last():
    states = torch.arange(24.0).view(2, 4, 3)
    mask = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]])  # padded on the right, and on the left
    encoder, decoder = SimpleNamespace(classifier=1), SimpleNamespace(score=1)
    inputs = {"attention_mask": mask}
    assert torch.equal(_feature(encoder, states, inputs), states[:, 0])
    assert torch.equal(_feature(decoder, states, inputs), torch.stack([states[0, 2], states[1, 3]]))
