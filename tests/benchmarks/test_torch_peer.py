import keras
import numpy as np
import pytest

from tfmmcl.benchmarks.generated import COHORT, noise_views
from tfmmcl.cohorts.synthetic.cohort import SyntheticCohort
from tfmmcl.config import validate
from tfmmcl.models.encoder import build_encoder
from tfmmcl.models.heads import build_projection_head
from tfmmcl.objectives.contrastive import nt_xent
from tfmmcl.pipeline.shapes import encoder_shape
from tfmmcl.settings import PretrainSettings

torch = pytest.importorskip("torch")

SPEC = SyntheticCohort(COHORT).spec.model_copy(update={"windows": 3})


def settings_of(**encoder):
    tree = {
        "data": {"path": "", "batch_size": 4},
        "encoder": encoder,
        "augmentation": {"segment": {"seconds": 2}},
    }
    return validate(tree, PretrainSettings, "test")


SMALL = settings_of(
    signal={"stem_filters": 4, "stage_filters": [4, 8, 8], "blocks_per_stage": 2, "units": 6},
    structured_units=[5, 6],
    statics_units=[7],
    recurrent_layers=2,
    recurrent_units=8,
)


def ours(settings):
    encoder = build_encoder(*encoder_shape(SPEC, settings), settings.encoder)
    return encoder, build_projection_head(settings.encoder.recurrent_units, settings.objective.projection_units)


def to_torch(layer):
    """Returns a Keras layer's weights in PyTorch's order and layout, running averages last."""
    weights = [np.asarray(weight) for weight in layer.get_weights()]
    if isinstance(layer, keras.layers.Conv1D):
        return [weights[0].transpose(2, 1, 0)]
    if isinstance(layer, keras.layers.Dense):
        return [weights[0].T, *weights[1:]]
    if isinstance(layer, keras.layers.GRU):
        kernel, recurrent, bias = weights
        # Keras: update, reset, candidate; PyTorch: reset, update, candidate.
        swapped = [
            np.concatenate([part[..., units : 2 * units], part[..., :units], part[..., 2 * units :]], axis=-1)
            for part, units in ((part, layer.units) for part in (kernel, recurrent, *bias))
        ]
        return [swapped[0].T, swapped[1].T, swapped[2], swapped[3]]
    return weights


def copy_weights(model, module):
    """Gives the module our weights: in the order in which both were written down."""
    weights = [weight for layer in ordered(model) for weight in to_torch(layer)]
    tensors = [
        tensor
        for part in module.modules()
        if not isinstance(part, torch.nn.GRU)
        for tensor in (
            *part.parameters(recurse=False),
            *(b for n, b in part.named_buffers(recurse=False) if n != "num_batches_tracked"),
        )
    ] + [tensor for part in module.modules() if isinstance(part, torch.nn.GRU) for tensor in part.parameters()]
    assert [tuple(tensor.shape) for tensor in tensors] == [weight.shape for weight in weights]
    with torch.no_grad():
        for tensor, weight in zip(tensors, weights):
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(weight)))


def ordered(model):
    """Returns layers in the order of the peer's modules: a block's shortcut first, the GRUs last."""
    names = ("signal_encoder", "structured_encoder", "statics_encoder")
    if not any(layer.name in names for layer in model.layers):
        return model.layers

    def rank(layer):
        words = layer.name.split("_")
        if not words[0].startswith("stage"):
            return ({"stem": 0, "embedding": 2}[words[0]],)
        return (1, words[:2], ("shortcut", "first", "second").index(words[2]))

    signal = [layer for layer in model.get_layer(names[0]).layers if layer.weights]
    return [
        *sorted(signal, key=rank),
        *model.get_layer(names[1]).layers,
        *model.get_layer(names[2]).layers,
        *(layer for layer in model.layers if isinstance(layer, keras.layers.GRU)),
    ]


@pytest.mark.parametrize("training", [True, False])
def test_the_peer_with_our_weights_gives_our_projections_and_loss(training):
    from tfmmcl.benchmarks import torch_peer

    encoder, head = ours(SMALL)
    peer = torch_peer.Pretraining(SMALL, SPEC).train(training)
    copy_weights(encoder, peer.encoder)
    copy_weights(head, peer.head)
    first, second = noise_views(SPEC, SMALL)
    views = {name: np.concatenate([first[name], second[name]]) for name in first}
    given = {name: torch.from_numpy(value) for name, value in views.items()}
    given["signals"] = given["signals"].transpose(2, 3)
    with torch.no_grad():
        embeddings = peer.encoder(**given)
        theirs = peer.head(embeddings)
    expected = encoder(views, training=training)
    projections = head(expected, training=training)
    np.testing.assert_allclose(embeddings.numpy(), expected, atol=2e-5)
    np.testing.assert_allclose(theirs.numpy(), projections, atol=2e-4)
    loss = torch_peer.nt_xent(torch.from_numpy(np.array(projections)), 0.1)
    assert float(loss) == pytest.approx(float(nt_xent(projections[:4], projections[4:], 0.1)), rel=1e-5)


def test_the_peer_of_the_papers_size_has_as_many_parameters():
    from tfmmcl.benchmarks import torch_peer

    peer = torch_peer.Pretraining(settings_of(), SPEC)
    assert torch_peer.count_parameters(peer.encoder) == 22_153_600


@pytest.mark.parametrize("kind", ["PlainRecords", "tfrecord_records"])
def test_the_loaders_give_batches_of_two_views(small_data, kind):
    from tfmmcl.benchmarks import torch_loader

    tree = {"data": {"path": str(small_data.path), "batch_size": 4}, "augmentation": {"segment": {"seconds": 2}}}
    settings = validate(tree, PretrainSettings, "test")
    batches = iter(torch_loader.loader(getattr(torch_loader, kind), small_data, settings, workers=0))
    for first, second in (next(batches) for _ in range(20)):  # more than there are records
        assert first["signals"].shape == (4, 3, 200, 2)
        assert first["structured"].shape[:2] == (4, 3)
        assert first["statics"].dtype == torch.float32
        assert not torch.equal(first["signals"], second["signals"])
