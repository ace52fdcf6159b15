LAB_NAME ?= main

.PHONY: test-lab lab
test-lab: ## scenario tests on real FRR, libvirt, QEMU and LXC; LAB_TESTS=name picks some
	program=$$(tests/lab/build --test lab) && tests/lab/run --name $(LAB_NAME) -- "$$program" --include-ignored --test-threads=1 $(LAB_TESTS)

lab: ## a shell in the running fabric; reads a script from stdin where that is no terminal
	program=$$(tests/lab/build --example lab-shell) && \
	if [ -t 0 ]; then tests/lab/run --name $(LAB_NAME) --tty -- "$$program"; else tests/lab/run --name $(LAB_NAME) --stdin -- "$$program"; fi
