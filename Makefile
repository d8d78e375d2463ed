# The usual words; each is an npm script of the same name.
.PHONY: start dev test bench check lint typecheck build generate ci image

start dev test bench check lint typecheck build generate:
	npm run $@

ci:
	.ci/run

image:
	docker build -t sallyport .
