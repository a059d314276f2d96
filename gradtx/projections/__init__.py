"""Projections: the nearest tree of a set. Functions, as in `optax.projections`, and sets as values.

`projection_l2_ball(tree, 2.0)` projects; `l2_ball(2.0)` is the same projection as a value, for
arguments such as `projection=` of an optimizer. Boxes, the orthant, the hypercube and the
L-infinity ball bound each element; for the other sets the whole tree is one vector. Numbers are
computed in at least float32 and stored in the dtypes of the tree, so that in half precision a
result is in the set up to the rounding of its dtype. A tree without elements comes back as it is.
"""

from gradtx.projections.boxes import projection_box, projection_hypercube, projection_linf_ball, projection_non_negative
from gradtx.projections.inputs import check_projection
from gradtx.projections.norms import (
    projection_l1_ball,
    projection_l1_sphere,
    projection_l2_ball,
    projection_l2_sphere,
    projection_linf_sphere,
    projection_simplex,
)
from gradtx.projections.planes import projection_affine_set, projection_halfspace, projection_hyperplane, projection_vector
from gradtx.projections.sets import (
    Projection,
    affine_set,
    box,
    halfspace,
    hypercube,
    hyperplane,
    l1_ball,
    l1_sphere,
    l2_ball,
    l2_sphere,
    linf_ball,
    linf_sphere,
    non_negative,
    simplex,
    vector,
)

__all__ = [
    "Projection",
    "affine_set",
    "box",
    "check_projection",
    "halfspace",
    "hypercube",
    "hyperplane",
    "l1_ball",
    "l1_sphere",
    "l2_ball",
    "l2_sphere",
    "linf_ball",
    "linf_sphere",
    "non_negative",
    "projection_affine_set",
    "projection_box",
    "projection_halfspace",
    "projection_hypercube",
    "projection_hyperplane",
    "projection_l1_ball",
    "projection_l1_sphere",
    "projection_l2_ball",
    "projection_l2_sphere",
    "projection_linf_ball",
    "projection_linf_sphere",
    "projection_non_negative",
    "projection_simplex",
    "projection_vector",
    "simplex",
    "vector",
]
