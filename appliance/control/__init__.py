"""What the processes of a system of storage processors say to each other: VCM, storage processors (SPs) and MIC.

The VCM gives *orders*, numbered and one after the other for a thing: a storage processor answers each with ``Done`` or
``Refused``, carries it out once however often it arrives, and gives the same answer again. So a message may be lost,
late or doubled by the bus. Whatever depends on the size of the system comes in parts that are asked for one by one.

*Incarnations* tell a process from its successor of the same name: an order for an earlier one is nobody's, and an
order of an earlier VCM is refused by silence. *Epochs* are those of the MVSP (M5): whoever has seen a higher one
refuses a lower. *Generations* count the distributions of a volume's tree over the storage processors.

Secrets are in here, since the VCM makes those of the internal fabrics and hands on those of hosts: no ``repr`` shows
one (S2).
"""
