#!/usr/bin/env bash
# optax: rules that estimate their own step ignore half of a complex unknown, or all of it, without an error.
#
# jax 0.10.2, optax 0.2.8. A least-squares problem with twenty complex unknowns, minimised twice by each rule of
# optax.contrib from the same start: once on the complex array (its gradient conjugated, as descent needs it), once on
# the same numbers as pairs of reals. Adam, whose moments take |g|^2, finds the solution either way. Prodigy stays
# where it starts on complex numbers and reaches zero on pairs: the distance that it estimates is a sum of complex
# products whose sign it compares. D-Adaptation and COCOB end worse by orders of magnitude. None of them says anything.
#
# What follows for a program that minimises over complex arrays: hand rules that are not known to be right on complex
# numbers the pairs of reals.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet "jax==0.10.2" "jaxlib==0.10.2" "optax==0.2.8"
"$folder/env/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp
import optax

print("jax", jax.__version__, "optax", optax.__version__)
keys = jax.random.split(jax.random.key(0), 4)
normal = lambda key, shape: jax.random.normal(key, shape)
matrix = (normal(keys[0], (40, 20)) + 1j * normal(keys[1], (40, 20))) * jnp.logspace(0, 1, 20)
data = matrix @ (normal(keys[2], (20,)) + 1j * normal(keys[3], (20,)))
cost = lambda z: jnp.mean(jnp.abs(matrix @ z - data) ** 2)
pairs = lambda p: cost(p[:, 0] + 1j * p[:, 1])


def minimum(rule, function, start, steps=400):
    @jax.jit
    def step(value, state):
        gradient = jnp.conj(jax.grad(function)(value))
        updates, state = rule.update(gradient, state, value)
        return optax.apply_updates(value, updates), state

    value, state = start, rule.init(start)
    for _ in range(steps):
        value, state = step(value, state)
    return float(function(value))


start = float(cost(jnp.zeros(20, jnp.complex64)))
print(f"start {start:.4g}")
rules = {
    "adam": optax.adam(0.05),
    "prodigy": optax.contrib.prodigy(),
    "dadapt_adamw": optax.contrib.dadapt_adamw(),
    "cocob": optax.contrib.cocob(),
}
found = {}
for name, rule in rules.items():
    found[name] = minimum(rule, cost, jnp.zeros(20, jnp.complex64)), minimum(rule, pairs, jnp.zeros((20, 2)))
    print(f"{name:14s} complex {found[name][0]:10.3g}   pairs of reals {found[name][1]:10.3g}")
assert max(found["adam"]) < 1e-6 * start, "adam differs"
assert found["prodigy"][0] > 0.9 * start and found["prodigy"][1] < 1e-6 * start, "prodigy has changed"
assert all(found[n][0] > 20 * found[n][1] for n in ("dadapt_adamw", "cocob")), "D-Adaptation or COCOB has changed"
print("as described")
PYTHON
