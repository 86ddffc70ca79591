# What a person types. Each target sets up what is missing first.
.PHONY: run test check format bench image boot image-test clean

STATE ?= var
PORTAL ?= 127.0.0.1:3260
# How many tests run side by side.
JOBS ?= auto
# Debian has mke2fs and losetup where ordinary users don't look.
export PATH := $(PATH):/usr/sbin:/sbin
# Tests start the appliance a hundred times: what Python has compiled is kept, whatever the caller has set.
unexport PYTHONDONTWRITEBYTECODE

run:
	@scripts/setup.sh run
	@.venv/bin/tiergate serve --demo --frontend embedded --state $(STATE) --portal $(PORTAL)

# Histories of the control plane in virtual time; `make check` runs a few.
test: export TIERGATE_SEEDS ?= 1000
test:
	@scripts/setup.sh test
	.venv/bin/pytest -n $(JOBS) --dist worksteal -m "not image" $(TESTS)

check:
	@scripts/setup.sh test
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/pytest -n $(JOBS) --dist worksteal -q -m "not root and not slow and not guest and not image"

format:
	@scripts/setup.sh test
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

bench:
	@scripts/setup.sh bench
	.venv/bin/python -m benchmarks
	.venv/bin/python -m benchmarks.guest
	.venv/bin/python -m benchmarks.metadata
	.venv/bin/python -m benchmarks.control

# Where Debian's packages come from, and what to do where their versions are not those of images/packages.lock:
# tell, strict (fail) or write (record them).
MIRROR ?= http://deb.debian.org
LOCK ?= tell
# For `make boot`: ports of 127.0.0.1 that lead to the portal and to SSH, auto, kvm or tcg, UEFI=--uefi, KEY=FILE.
PORT ?= 3260
SSH_PORT ?= 2222
ACCEL ?= auto

image:
	@scripts/setup.sh image
	@.venv/bin/python -m images.build --mirror $(MIRROR) --lock $(LOCK)

boot:
	@scripts/setup.sh image
	@.venv/bin/python -m images.boot --port $(PORT) --accel $(ACCEL) $(UEFI) $(if $(KEY),--key $(KEY) --ssh-port $(SSH_PORT))

image-test: image
	.venv/bin/pytest -m image --no-header tests/images

clean:
	rm -rf .venv build dist *.egg-info benchmarks/build backstores/engine/*.c backstores/engine/*.so
	find . -name __pycache__ -prune -exec rm -rf {} +
