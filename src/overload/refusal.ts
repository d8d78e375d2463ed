import { type GatewayError, refuse } from '../errors.ts'

/** How many seconds those who are refused are asked to wait: one of these, so that they do not all come back at once. */
const LATER = ['1', '2', '3'] as const

/** @param reason for the log: what there was too much of */
export function overloaded(reason: string, random: () => number, message?: string): GatewayError {
  return refuse('overloaded', { reason, message, headers: ['retry-after', LATER[Math.floor(random() * 3)] as string] })
}

/** The service has as many requests as it takes, and enough of them wait. */
export function serviceBusy(reason: string, random: () => number): GatewayError {
  return overloaded(reason, random, 'The service is overloaded.')
}
