import { styleText } from 'node:util'
import type { Exchange } from '../proxy/exchange.ts'

/** What the log says of a request, beyond what its exchange knows. */
export interface Outcome {
  /** Milliseconds since 1970, at the end of the answer. */
  readonly now: number
  /** Of the whole request, in milliseconds. */
  readonly durationMs: number
  readonly status: number
  /** The configuration that served it. */
  readonly generation: string
}

const NEEDS_ESCAPE = /["\\\x00-\x1f\x7f-\uffff]/
const LONGEST = 1024

/** A JSON string. Control characters, of whatever kind, come out as escapes: nobody writes lines of their own (H-125). */
export function quote(text: string): string {
  const cut = text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text
  if (!NEEDS_ESCAPE.test(cut)) return `"${cut}"`
  return JSON.stringify(cut).replace(
    /[\x7f-\x9f\u2028\u2029]/g,
    char => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`
  )
}

/** pino's numbers for levels. */
export const LEVELS: Readonly<Record<string, number>> = {
  trace: 10,
  debug: 20,
  info: 30,
  warn: 40,
  error: 50,
  fatal: 60,
  silent: 100
}

/** 5xx are errors, refusals for credentials and limits warnings only if somebody looks for them: everything else is info. */
export function levelOf(status: number): number {
  return status >= 500 ? 50 : 30
}

const THREE_DIGITS = Array.from({ length: 1000 }, (_, n) => String(n).padStart(3, '0'))

/** `0.006` for 6.2 ms: what `toFixed` does, at a tenth of its cost. */
export function seconds(ms: number): string {
  const whole = Math.round(ms)
  return `${Math.floor(whole / 1000)}.${THREE_DIGITS[whole % 1000]}`
}

/** `1.3` for 1.27 ms. */
function tenths(ms: number): string {
  const whole = Math.round(ms * 10)
  return `${Math.floor(whole / 10)}.${whole % 10}`
}

/** One JSON line for a request, in the shape of pino's, written by concatenation: this runs for every request. */
export function jsonLine(exchange: Exchange, outcome: Outcome): string {
  const { route, consumer } = exchange
  let line = `{"level":${levelOf(outcome.status)},"time":${outcome.now},"request_id":"${exchange.id}","method":${quote(exchange.method)},"path":${quote(exchange.path)},"status_code":${outcome.status},"duration":${seconds(outcome.durationMs)},"client":"${exchange.client}"`
  if (exchange.peer.batch !== '') line += `,"batch":"${exchange.peer.batch}"`
  if (route !== undefined) line += route.logFields + (exchange.target ?? route.target).logFields
  if (exchange.attempts > 0) line += `,"instance":${quote(exchange.instance)},"attempts":${exchange.attempts}`
  if (exchange.upstreamMs >= 0) line += `,"upstream_ms":${tenths(exchange.upstreamMs)}`
  if (consumer !== undefined) line += `,"consumer":${quote(consumer.key)},"credential":"${consumer.credential}"`
  line += `,"bytes_in":${exchange.bytesIn},"bytes_out":${exchange.bytesOut},"generation":"${outcome.generation}"`
  if (exchange.aborted) line += ',"aborted":true'
  if (exchange.fallback !== '') line += `,"fallback":"${exchange.fallback}"`
  if (exchange.errorCode !== '') line += `,"error":"${exchange.errorCode}"`
  if (exchange.reason !== '') line += `,"reason":${quote(exchange.reason)}`
  return `${line},"msg":"request"}\n`
}

/** The same for a person at a terminal: `12:01:07 200 GET  /users/7  alice  users  6 ms (gateway 0.4) 1.2 kB`. */
export function prettyLine(exchange: Exchange, outcome: Outcome): string {
  const { route, consumer, upstreamMs } = exchange
  const time = new Date(outcome.now).toTimeString().slice(0, 8)
  const colour = outcome.status >= 500 ? 'red' : outcome.status >= 400 ? 'yellow' : 'green'
  // Of a WebSocket, nearly all of it is between the client and the service.
  const own =
    upstreamMs >= 0 && !exchange.tunnelled
      ? ` (gateway ${Math.max(0, outcome.durationMs - upstreamMs).toFixed(1)})`
      : ''
  const end =
    exchange.reason !== '' ? exchange.reason : exchange.errorCode !== '' ? exchange.errorCode : bytes(exchange.bytesOut)
  return `${[
    styleText('dim', time),
    styleText(colour, String(outcome.status)),
    exchange.method.padEnd(4),
    printable(exchange.path).padEnd(28),
    printable(consumer?.id ?? '-').padEnd(10),
    ((exchange.target ?? route?.target)?.service.name ?? '-').padEnd(10),
    `${outcome.durationMs.toFixed(outcome.durationMs < 10 ? 1 : 0)} ms${own}`,
    printable(end) + (exchange.aborted ? ' aborted' : '')
  ].join(' ')}\n`
}

function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, 200)
}

function bytes(count: number): string {
  return count < 1000
    ? `${count} B`
    : count < 1_000_000
      ? `${(count / 1000).toFixed(1)} kB`
      : `${(count / 1_000_000).toFixed(1)} MB`
}
