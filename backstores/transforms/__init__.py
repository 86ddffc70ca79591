"""Transforms: each maps a request on itself to requests on its children (R7).

One transform is one module, one test and one row in ``backstores.transforms.registry``.
"""
