#!/bin/sh
# Runs in the image's tree while it is made: installs the appliance, and takes away what only building needs.
#   install.sh PACKAGE...      the Debian packages to remove at the end
set -eu
source=/usr/src/tiergate

python3 -m venv /opt/tiergate
pip="/opt/tiergate/bin/pip --disable-pip-version-check --no-cache-dir install --quiet --no-compile --no-index"
$pip --require-hashes --find-links "$source/wheels" --requirement "$source/requirements.txt"
$pip --no-deps --no-build-isolation "$source/tiergate"
/opt/tiergate/bin/python -c 'import backstores.engine._ring'
/opt/tiergate/bin/pip --disable-pip-version-check uninstall --quiet --yes cython setuptools pip
# Hashes that nobody checks: the tree's times change when it is packed, and what is compiled must still count.
/opt/tiergate/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/tiergate/lib /usr/lib/tiergate
ln -s /opt/tiergate/bin/tiergate /usr/bin/tiergate
mkdir -p /etc/target # where LIO looks for what it keeps; it complains otherwise

# What starts GRUB: the rest of it is in /boot/grub/grub.cfg.
grub="part_gpt ext2 search search_fs_uuid normal configfile linux echo minicmd test serial terminal reboot halt"
grub-mkimage --format=i386-pc --output=/boot/grub/core.img --prefix=/boot/grub --config="$source/find-root.cfg" \
    biosdisk $grub
grub-mkimage --format=x86_64-efi --output=/boot/grub/bootx64.efi --prefix=/boot/grub --config="$source/find-root.cfg" \
    all_video efi_gop $grub
cp /usr/lib/grub/i386-pc/boot.img /boot/grub/boot.img

systemctl --quiet enable tiergate.service ssh-key.path systemd-networkd.service
systemctl --quiet disable ssh.service
systemctl --quiet mask systemd-firstboot.service
rm -f /etc/ssh/ssh_host_* # the same keys in every appliance would be nobody's

export DEBIAN_FRONTEND=noninteractive
# What other packages merely suggest goes, too.
apt-get purge --quiet --quiet --yes --autoremove --option APT::AutoRemove::RecommendsImportant=false \
    --option APT::AutoRemove::SuggestsImportant=false "$@"
rm -rf "$source"
