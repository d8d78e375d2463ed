import { installPackages } from '../packages.ts'
import type { Contender } from './contender.ts'

const program = (file: string) => `bench/programs/${file}`

/** What everybody's cost is measured against. */
export const bareHttpProxy: Contender = {
  name: 'bare',
  title: 'bare @fastify/http-proxy',
  policies: 'none',
  command: ({ port, upstream }) => [process.execPath, program('http-proxy.ts'), String(port), String(upstream)]
}

export const naiveStack: Contender = {
  name: 'naive',
  title: 'official Fastify plugins, defaults',
  policies: 'all',
  command: ({ port, upstream }) => [process.execPath, program('naive.ts'), String(port), String(upstream)]
}

export const expressStack: Contender = {
  name: 'express',
  title: 'express + http-proxy-middleware, same policies',
  policies: 'all',
  missing: installPackages,
  command: ({ port, upstream }) => [process.execPath, program('express.mjs'), String(port), String(upstream)]
}
