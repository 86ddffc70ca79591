"""What lies on an ALU (R1, R2, R3): label, object region, dirty-region bitmaps. See docs/metadata-format.md.

layout, sector, steps, findings     what all the others speak of
label, mdr, table, bitmap           one structure each: build, parse, update
region, records                     the objects: how a commit is written, and what its bodies hold
copies, recovery, witness           what was written, by what can be read: which copy counts, what is lost
inspection, signatures              what an ALU is to this appliance, by what was read of it
laying, version_1                   a claim; a migration, and the version that it starts from
dirty                               which regions of a running mirror are dirty
free, merge, mends                  free extents; the system image out of all ALUs, and what of it can be mended
store                               the only one that does I/O
dump, checkup                       all that lies on an ALU; what is wrong with ALUs, and what can be repaired
document                            makes the description of the format
"""
