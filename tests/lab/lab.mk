LAB_NAME ?= main

.PHONY: test-lab lab soak
test-lab: ## scenario tests on real FRR, libvirt, QEMU and LXC; LAB_TESTS=name picks some
	program=$$(tests/lab/build --test lab) && tests/lab/run --name $(LAB_NAME) -- "$$program" --include-ignored --test-threads=1 $(LAB_TESTS)

soak: ## hours: FRR lives through a tenant that comes and goes 200 times, and 50 times each as trixie's and sid's FRR; hostile guests for five minutes, a duplicate for ten
	@tests/lab/soak

lab: ## a shell in the running fabric; reads a script from stdin where that is no terminal
	program=$$(tests/lab/build --example lab-shell) && \
	if [ -t 0 ]; then tests/lab/run --name $(LAB_NAME) --tty -- "$$program"; else tests/lab/run --name $(LAB_NAME) --stdin -- "$$program"; fi
