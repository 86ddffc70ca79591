"""The kernel's way to hosts: volumes as TCMU backstores behind LIO's iSCSI target (R31).

LIO is configured by folders and files under /sys/kernel/config/target. What we want there follows from our
own settings alone and is derived anew at each start; LIO's saveconfig.json is not used, so it can't be lost,
stale or empty. From pure to dirty:

- ``tree`` says which folders we want, with which settings and links;
- ``rules`` says what LIO can't express, before anything is touched;
- ``plan`` compares what we want with what is there, and gives the steps in between, in an order that the
  kernel takes; what it does not know as ours it neither changes nor removes;
- ``reservations`` gives back to LIO what it keeps of persistent reservations and never reads;
- ``configfs`` reads what is there and carries steps out; ``front_end`` joins it to volumes and handlers.

The folders are written directly, and not through rtslib-fb. That library looks everything up again for each
object it makes, which is what makes one LUN more slow where there are hundreds; it has no words for blocking a
device and resetting its ring, on which a restart without loss rests; and it takes libudev merely to be imported,
and an /etc/target to be used. Here one new LUN is a dozen writes, however many there are already.

How we know what is ours: a backstore by its name, which begins with the appliance's mark, and a target by the
TargetAlias of its portal group, which is written before anything else is. Both survive a kill at any moment.
"""
