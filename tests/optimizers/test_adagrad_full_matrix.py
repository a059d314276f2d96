"""AdaGrad with the full matrix: float64 oracle, rotations, rank deficiency, sizes, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import distance, tanh_regression, trajectory
from rotations import rotation, rotation_error

import gradtx

TANH = tanh_regression()
TREE = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}, "gain": jnp.ones(())}


def full_matrix(steps: int, lr: float, initial: float, eps: float, whole_tree: bool) -> dict[str, np.ndarray]:
    """Duchi et al. 2011, figure 1: `S = S + g g^T`, `x = x - lr * (eps I + S^(1/2))^-1 g`."""
    x, path, sums = dict(TANH.params), [], {}

    def direction(key: str, g: np.ndarray) -> np.ndarray:
        sums[key] = sums.get(key, initial * np.eye(g.size)) + np.outer(g, g)
        eigenvalues, q = np.linalg.eigh(sums[key])
        root = (q * np.sqrt(np.maximum(eigenvalues, 0))) @ q.T
        return np.linalg.solve(root + eps * np.eye(g.size), g)

    for _ in range(steps):
        g = TANH.gradient(x)
        if whole_tree:
            joint = direction("", np.concatenate([g[name].ravel() for name in sorted(g)]))
            ends = np.cumsum([g[name].size for name in sorted(g)])
            moves = dict(zip(sorted(g), np.split(joint, ends[:-1]), strict=True))
        else:
            moves = {name: direction(name, g[name].ravel()) for name in g}
        x = {name: x[name] - lr * moves[name].reshape(x[name].shape) for name in x}
        path.append(x)
    return {name: np.stack([point[name] for point in path]) for name in x}


@pytest.mark.parametrize("whole_tree", [False, True], ids=["by leaf", "whole tree"])
def test_oracle(whole_tree):
    tx = gradtx.adagrad_full_matrix(0.3, 0.1, 1e-3, whole_tree=whole_tree)
    assert distance(trajectory(tx, TANH, 30), full_matrix(30, 0.3, 0.1, 1e-3, whole_tree)) < 1e-10


@pytest.mark.parametrize("initial", [0.1, 0.0])
def test_a_rotation_of_the_parameters_rotates_the_iterates(initial):
    """From `S = 0` the first steps have a matrix of rank 1, 2, ...: only the subspace of gradients may move."""
    q = rotation(6)
    assert rotation_error(gradtx.adagrad_full_matrix(0.3, initial), q) < (1e-12 if initial else 2.5e-6)
    assert rotation_error(gradtx.adagrad(0.3, initial), q) > 0.1  # the diagonal form does not


def test_one_element_is_the_diagonal_form():
    grads = [jnp.asarray(g) for g in (2.0, -1.0, 0.5)]
    full, diagonal = (
        gradtx.scale_by_full_matrix_adagrad(0.1, 0.0),
        gradtx.scale_by_rss(0.1, 0.0),
    )
    states = full.init(grads[0]), diagonal.init(grads[0])
    for g in grads:
        a, s = full.update(g, states[0])
        b, t = diagonal.update(g, states[1])
        states = s, t
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_zero_directions_get_nothing(dtype):
    """Gradients on a line in a space of 20: whatever rounding does, the updates stay on it, with the length `1/sqrt(t)`."""
    line = jnp.asarray(np.random.default_rng(3).normal(size=20), dtype)
    line32 = np.asarray(line, np.float64)
    unit = line32 / np.linalg.norm(line32)
    tx = gradtx.scale_by_full_matrix_adagrad(0.0)
    state = tx.init(line)
    for t in range(1, 6):
        updates, state = tx.update(line, state)
        assert updates.dtype == dtype
        rounding = 30 * float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(np.asarray(updates, np.float64), unit / np.sqrt(t), atol=rounding)
    still, _ = tx.update(jnp.zeros(20, dtype), state)
    assert np.array_equal(still, np.zeros(20))


def test_complex_leaves_are_hermitian():
    """A unitary rotation of the gradients rotates the updates; the matrix is `g g^H`, real on its diagonal."""
    rng = np.random.default_rng(5)
    gradients = rng.normal(size=(8, 3)) + 1j * rng.normal(size=(8, 3))
    unitary = np.linalg.qr(rng.normal(size=(3, 3)) + 1j * rng.normal(size=(3, 3)))[0]
    tx = gradtx.scale_by_full_matrix_adagrad(0.1)
    plain = turned = tx.init(jnp.zeros(3, jnp.complex64))
    for g in gradients:
        u, plain = tx.update(jnp.asarray(g, jnp.complex64), plain)
        v, turned = tx.update(jnp.asarray(unitary @ g, jnp.complex64), turned)
        np.testing.assert_allclose(v, unitary @ np.asarray(u), atol=1e-5)
    s = np.asarray(plain.sum_of_outer_products)
    np.testing.assert_allclose(s, 0.1 * np.eye(3) + gradients.T @ gradients.conj(), rtol=1e-5)
    np.testing.assert_allclose(s, s.conj().T, atol=1e-5)


def test_whole_tree_couples_leaves():
    state = gradtx.scale_by_full_matrix_adagrad(whole_tree=True).init(TREE)
    assert state.sum_of_outer_products.shape == (9, 9)
    by_leaf = gradtx.scale_by_full_matrix_adagrad().init(TREE).sum_of_outer_products
    assert jax.tree.map(jnp.shape, by_leaf) == {"dense": {"kernel": (6, 6), "bias": (2, 2)}, "gain": (1, 1)}


def test_whole_tree_of_several_dtypes():
    tx = gradtx.scale_by_full_matrix_adagrad(0.0, whole_tree=True)
    grads = {"a": jnp.array([3.0], jnp.bfloat16), "b": jnp.array(4.0), "none": None}
    updates, state = tx.update(grads, tx.init(grads))
    assert state.sum_of_outer_products.dtype == jnp.float32
    assert updates["a"].dtype == jnp.bfloat16
    np.testing.assert_allclose([float(updates["a"][0]), float(updates["b"])], [0.6, 0.8], atol=2e-3)


# Errors -------------------------------------------------------------------------------------------------------


def test_a_leaf_too_large():
    tx = gradtx.adagrad_full_matrix(0.1, max_size=5)
    with pytest.raises(
        ValueError,
        match=r"^adagrad_full_matrix > scale_by_full_matrix_adagrad: params leaf `dense/kernel` has 6 elements, whose matrix takes "
        r"144 bytes, expected at most max_size=5 elements\. Use the diagonal gradtx\.adagrad for large leaves \(with "
        r"gradtx\.partition\), or raise max_size\.$",
    ):
        tx.init(TREE)
    with pytest.raises(ValueError, match=r"params leaf `w` has 1025 elements, whose matrix takes 8405000 bytes"):
        gradtx.scale_by_full_matrix_adagrad().init({"w": jnp.ones(1025, jnp.complex64)})
    assert gradtx.scale_by_full_matrix_adagrad(max_size=6).init(TREE)


def test_a_tree_too_large():
    tx = gradtx.scale_by_full_matrix_adagrad(whole_tree=True, max_size=8)
    with pytest.raises(ValueError, match=r"params have 9 elements, whose matrix takes 324 bytes, expected at most max_size=8"):
        tx.init(TREE)


def test_complex_and_real_leaves_in_one_vector():
    tx = gradtx.scale_by_full_matrix_adagrad(whole_tree=True)
    with pytest.raises(
        ValueError,
        match=r"whole_tree is True and the tree has complex and real leaves, expected leaves of one kind\. "
        r"Use whole_tree=False, or gradtx\.partition for the two kinds\.$",
    ):
        tx.init({"a": jnp.ones(2), "b": jnp.ones(2, jnp.complex64)})


def test_the_state_of_other_parameters():
    tx = gradtx.scale_by_full_matrix_adagrad()
    state = tx.init(TREE)
    other = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "gain": jnp.ones(())}
    with pytest.raises(
        ValueError,
        match=r"updates leaf `dense/kernel` has 4 elements, but the matrix in the state has shape \(6, 6\), expected \(4, 4\)\. "
        r"Was the state made from other parameters, or with another whole_tree\?$",
    ):
        tx.update(other, state)
    with pytest.raises(ValueError, match=r"updates and the tree in the state differ in structure: `gain` is only in"):
        tx.update({"dense": TREE["dense"]}, state)
    joint = gradtx.scale_by_full_matrix_adagrad(whole_tree=True)
    with pytest.raises(ValueError, match=r"updates have 7 elements, but the matrix in the state has shape \(9, 9\)"):
        joint.update(other, joint.init(TREE))
