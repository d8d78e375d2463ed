/**
 * Node's HTTP modules without `import`, which evaluates every export of theirs, a bundled fetch and WebSocket among them: that
 * was 30 ms of a start. Types come from the modules themselves (`import type`).
 */
export const http = process.getBuiltinModule('node:http')

/** Loaded when somebody has TLS. */
export const https = (): typeof import('node:https') => process.getBuiltinModule('node:https')
export const http2 = (): typeof import('node:http2') => process.getBuiltinModule('node:http2')
export const tls = (): typeof import('node:tls') => process.getBuiltinModule('node:tls')
