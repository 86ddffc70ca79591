"""Where things are on the fabrics, and how a fabric is made to fail (R19).

Without root each fabric is a network of loopback addresses. As root it may be a bridge, with each SP in a network
namespace of its own and a cable to each of its bridges. Commands and everything above are the same in both.
"""
