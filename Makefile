# The usual words; each is an npm script of the same name.
.PHONY: start dev test bench check lint typecheck build generate drift ci image

start dev test bench check lint typecheck build generate drift:
	npm run $@

ci:
	.ci/run

image:
	docker build -t sallyport .
