import type { Consumer } from './consumer.ts'

/**
 * The fields that introduce a caller to a service (IDN-18), flat. Values come from tokens, so what a header cannot hold is
 * percent-encoded: a claim must not be able to start a field of its own.
 */
export function identityFields(consumer: Omit<Consumer, 'identityFields'>): readonly string[] {
  const { kind, id, name, roles, permissions, credential } = consumer
  const fields: string[] = []
  const add = (field: string, value: string): void => {
    if (value !== '') fields.push(field, value)
  }
  add(kind === 'user' ? 'x-user-id' : 'x-client-id', encode(id))
  add('x-user-name', encode(name))
  add('x-user-roles', roles.map(encodeItem).join(','))
  add('x-user-permissions', permissions.map(encodeItem).join(','))
  add('x-auth-method', credential)
  return Object.freeze(fields)
}

/** Spaces at the ends would be lost on the way, and " admin" would arrive as "admin". */
function encode(value: string): string {
  return value.toWellFormed().replace(/[^\x20-\x7e]|%|^ +| +$/gu, encodeURIComponent)
}

/** A comma within a role would make two of it. */
function encodeItem(value: string): string {
  return encode(value).replaceAll(',', '%2C')
}
