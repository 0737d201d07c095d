"""Train a convolutional network with mulo-m-desk and with optax.adamw, and draw the losses.

    python docs/explanation/convnet.py [--steps 500] [--width 128] [--seeds 5]

Prints the table of docs/explanation/convnet.md and draws pictures/convnet.png beside it, or what
`--out` says. The data come with scikit-learn.
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import mulo_cli as mulo

HERE = Path(__file__).parent
BATCH, WINDOW = 64, 25
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
CUSTOMARY_RATE = 1e-3


class ConvNet(nn.Module):
    """Two convolutions and a readout: of mup (zero at first, divided by its fan-in) or flax's."""

    width: int
    mup: bool

    @nn.compact
    def __call__(self, images):
        """Map images (B, 8, 8, 1) to logits."""
        x = nn.relu(nn.Conv(self.width, (3, 3))(images))
        x = nn.relu(nn.Conv(self.width, (3, 3), strides=(2, 2))(x))
        x = x.reshape(len(x), -1)
        return mulo.Readout(10)(x) if self.mup else nn.Dense(10)(x)


def digits():
    """Return the training and the test images and labels, the same for all."""
    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean()) / images.std()
    order = np.random.default_rng(0).permutation(len(labels))
    images = jnp.asarray(images[order].reshape(-1, 8, 8, 1), jnp.float32)
    labels = jnp.asarray(labels[order], jnp.int32)
    return (images[360:], labels[360:]), (images[:360], labels[:360])


def loss_of(net, params, images, labels):
    """Return the mean cross-entropy."""
    logits = net.apply(params, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def train(net, tx, steps, seed):
    """Return the losses of all steps, and the test accuracy in the end."""
    (images, labels), (test_images, test_labels) = digits()
    key_init, key_data = jax.random.split(jax.random.key(seed))
    params = net.init(key_init, images[:1])
    state = tx.init(params)

    @jax.jit
    def step(params, state, key):
        index = jax.random.randint(key, (BATCH,), 0, len(images))
        loss, grads = jax.value_and_grad(loss_of, argnums=1)(
            net, params, images[index], labels[index]
        )
        updates, state = tx.update(grads, state, params, loss=loss)
        return optax.apply_updates(params, updates), state, loss

    losses = []
    for key in jax.random.split(key_data, steps):
        params, state, loss = step(params, state, key)
        losses.append(loss)
    right = jnp.argmax(net.apply(params, test_images), 1) == test_labels
    return [float(loss) for loss in losses], float(right.mean())


def optimizers(width, steps):
    """Return name -> (network, optimizer); mulo's are the three lines of its README."""

    def init(width):
        return lambda key: ConvNet(width, mup=True).init(key, jnp.zeros((1, 8, 8, 1)))

    roles = mulo.infer_roles(init(width // 2), init(width))
    learned = mulo.learned_optimizer("mulo-m-desk", roles=roles, num_steps=steps)
    found = {"mulo-m-desk": (ConvNet(width, mup=True), learned)}
    for rate in RATES:
        tx = optax.with_extra_args_support(optax.adamw(rate))
        found[f"adamw {rate:g}"] = (ConvNet(width, mup=False), tx)
    return found


def mean_and_error(values):
    """Return the mean over seeds and its standard error."""
    values = np.asarray(values)
    return values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))


def table(runs):
    """Return the Markdown table: mean losses of some windows of WINDOW steps, test accuracy."""
    steps = len(runs["mulo-m-desk"]["losses"][0])
    ends = sorted({steps // 10, steps // 4, steps // 2, steps})
    head = " | ".join(f"loss {end - WINDOW + 1} to {end}" for end in ends)
    lines = [f"| optimizer | {head} | test accuracy |", "|---" + "|--:" * (len(ends) + 1) + "|"]
    for name, run in runs.items():
        losses = np.asarray(run["losses"])
        windows = [mean_and_error(losses[:, end - WINDOW : end].mean(1)) for end in ends]
        accuracy, error = mean_and_error(100 * np.asarray(run["accuracies"]))
        cells = [f"{mean:.4f} ± {error:.4f}" for mean, error in windows]
        lines.append(f"| {name} | {' | '.join(cells)} | {accuracy:.1f} ± {error:.1f} % |")
    return "\n".join(lines)


def draw(runs, path):
    """Draw the mean losses of windows of WINDOW steps, with a band of one standard error."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), dpi=110, layout="constrained")
    axes = figure.subplots()
    for i, (name, run) in enumerate(runs.items()):
        losses = np.asarray(run["losses"])
        windows = losses.reshape(len(losses), -1, WINDOW).mean(2)
        mean, error = mean_and_error(windows)
        at = WINDOW * (np.arange(len(mean)) + 0.5)
        ours = name == "mulo-m-desk"
        color = "tab:red" if ours else str(0.8 - 0.15 * (i - 1))
        label = f"{name} (customary)" if name == f"adamw {CUSTOMARY_RATE:g}" else name
        axes.plot(at, mean, color=color, label=label, linewidth=2.2 if ours else 1.3)
        axes.fill_between(at, mean - error, mean + error, color=color, alpha=0.2, linewidth=0)
    axes.set(yscale="log", xlabel="step", ylabel=f"training loss (mean of {WINDOW} steps)")
    axes.legend(frameon=False, fontsize="small")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def main():
    """Train all of them with all seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("steps", 500), ("width", 128), ("seeds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, default=HERE / "pictures" / "convnet.png")
    asked = parser.parse_args()
    runs = {}
    for name, (net, tx) in optimizers(asked.width, asked.steps).items():
        done = [train(net, tx, asked.steps, seed) for seed in range(asked.seeds)]
        losses, accuracies = zip(*done, strict=True)
        runs[name] = {"losses": losses, "accuracies": accuracies}
        print(f"{name}: {np.mean(losses, 0)[-WINDOW:].mean():.4f}", flush=True)
    print(table(runs))
    draw(runs, asked.out)


if __name__ == "__main__":
    main()
