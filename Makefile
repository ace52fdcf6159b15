# evpn-hook. Two commands do everything on a bare Debian (trixie or bookworm) with cargo (Rust 1.89 or newer) and root: `make demo`, `make test`.
PREFIX ?= /usr
DESTDIR ?=
DATA = $(DESTDIR)$(PREFIX)/share
SHARE = $(DATA)/evpn-hook
UNITS = $(DESTDIR)$(PREFIX)/lib/systemd/system
RULES = $(DESTDIR)$(PREFIX)/lib/udev/rules.d

.PHONY: all build manual demo test fuzz lint bench bench-check bench-baseline bench-docs platforms deb install install-files install-manual uninstall clean help
all: build

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

build: ## the release binaries
	@packaging/build

manual: ## manual pages and completions for bash, zsh and fish, in target/manual
	@packaging/manual

demo: ## the webinar's fabric on this machine: real FRR, libvirt, QEMU and LXC
	@program=$$(tests/lab/build --example demo) && tests/lab/run --name demo --timeout 900 -- "$$program"

test: ## everything: unit, golden, kernel, FRR and fabric tests
	@tests/run

fuzz: ## feeds rubbish to every reader of what others wrote, 20 CPU-minutes a target; needs a nightly compiler and cargo-fuzz
	@fuzz/run

lint: ## rustfmt and clippy
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

bench: build ## the hook against a static no-op and a bash hook, in one run; hooks, agent and sync on a host of 10,000 guests; 1,000 hooks at once; hooks across a fabric of FRRs; reports on one of 100,000 routes
	@tests/lab/deps.sh
	EVPN_HOOK=$$(packaging/build --path) cargo bench --quiet --bench hook --bench scale --bench burst --bench fabric --bench reports

bench-check: build ## has a hook call become 20 % dearer than benches/hook/baseline.toml? Counts, not times; `make test` runs it
	@EVPN_HOOK=$$(packaging/build --path) cargo test --quiet --bench hook -- check

bench-baseline: build ## sets that baseline anew
	@EVPN_HOOK=$$(packaging/build --path) cargo test --quiet --bench hook -- baseline

bench-docs: ## what the last `make bench` left in target/bench, into docs/performance.md
	@benches/docs

platforms: ## what the last `make test` saw on each Debian, into docs/platforms.md
	@tests/platforms

deb: ## Debian packages of evpn-hook and evpn-agent, in target/deb
	@packaging/deb

install: build manual install-files install-manual ## DESTDIR and PREFIX are honoured; `evpn-hook install` then links the hooks

install-files: # what `install` does once the binary is built
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $$(packaging/build --path) $$(dirname $$(packaging/build --path))/evpn-agent
	install -d $(UNITS)
	for unit in evpn-agent evpn-networks; do sed 's,/usr/bin/,$(PREFIX)/bin/,' packaging/$$unit.service >$(UNITS)/$$unit.service; done
	install -D -m 644 -t $(RULES) packaging/85-evpn-hook.rules
	install -d $(SHARE)/libvirt-networks $(SHARE)/lxc $(SHARE)/incus
	install -m 644 libvirt-networks/*.xml $(SHARE)/libvirt-networks/
	install -m 644 lxc-templates/*.conf $(SHARE)/lxc/
	install -m 644 incus-profiles/*.yaml $(SHARE)/incus/
	install -m 644 packaging/config.toml.example $(SHARE)/
	$(DESTDIR)$(PREFIX)/bin/evpn-hook install --root $(DESTDIR)/

install-manual: # what packaging/manual has written
	install -D -m 644 -t $(DATA)/man/man8 target/manual/man/*
	install -D -m 644 -t $(DATA)/bash-completion/completions target/manual/bash/*
	install -D -m 644 -t $(DATA)/zsh/vendor-completions target/manual/zsh/*
	install -D -m 644 -t $(DATA)/fish/vendor_completions.d target/manual/fish/*

uninstall: ## takes out what `make install` put there
	$(DESTDIR)$(PREFIX)/bin/evpn-hook uninstall --root $(DESTDIR)/
	rm -rf $(DESTDIR)$(PREFIX)/bin/evpn-hook $(DESTDIR)$(PREFIX)/bin/evpn-agent $(UNITS)/evpn-agent.service $(UNITS)/evpn-networks.service $(SHARE)
	rm -f $(RULES)/85-evpn-hook.rules
	rm -f $(DATA)/man/man8/evpn-hook.8 $(DATA)/man/man8/evpn-hook-*.8 $(DATA)/man/man8/evpn-agent.8
	rm -f $(foreach name,evpn-hook evpn-agent,$(DATA)/bash-completion/completions/$(name) $(DATA)/zsh/vendor-completions/_$(name) $(DATA)/fish/vendor_completions.d/$(name).fish)

clean:
	cargo clean

include tests/lab/lab.mk
