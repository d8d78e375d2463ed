import { type Command, UsageError } from '../cli.ts'
import { loadConfiguration } from '../gateway.ts'
import { makeApiKey } from '../identity/api-key.ts'
import { parseDuration } from '../schema.ts'
import { signToken } from '../token.ts'
import { sourcesOf } from './quickstart.ts'

const token: Command = {
  summary: 'Makes a token for development, signed with the configuration’s key; or an API key',
  options: {
    sub: { type: 'string', value: 'name', description: 'Whose it is; alice if not given' },
    name: { type: 'string', value: 'text', description: 'What services are told the caller is called' },
    role: {
      type: 'string',
      multiple: true,
      value: 'role',
      description: 'Role of the caller; may repeat, user if not given'
    },
    permission: {
      type: 'string',
      multiple: true,
      value: 'permission',
      description: 'Permission of the caller; may repeat'
    },
    tier: { type: 'string', value: 'tier', description: 'Tier whose limits the caller has' },
    expires: {
      type: 'string',
      value: '10m',
      description: 'Life of the token; identity.jwt.access_minutes if not given'
    },
    'api-key': { type: 'boolean', description: 'Make an API key instead, and the hash that the configuration takes' }
  },
  async run(invocation) {
    const { values, json } = invocation
    if (values['api-key']) {
      const { key, hash } = makeApiKey(process.env.ENVIRONMENT ?? 'development')
      process.stdout.write(
        json
          ? `${JSON.stringify({ key, hash })}\n`
          : `key   ${key}   give this to the caller; it is kept nowhere\nhash  ${hash}   put this into identity.api_keys[].hash\n`
      )
      return 0
    }
    const { snapshot } = await loadConfiguration(sourcesOf(invocation))
    const { expires = `${snapshot.identity.jwt.access_minutes}m` } = values
    const seconds = parseDuration(String(expires)) / 1000
    if (!(seconds > 0)) throw new UsageError(`--expires ${expires}: write 30s, 10m, 1h or 7d`)
    const signed = await signToken(snapshot, {
      subject: String(values.sub ?? 'alice'),
      roles: (values.role as string[] | undefined) ?? ['user'],
      permissions: (values.permission as string[] | undefined) ?? [],
      tier: values.tier as string | undefined,
      name: values.name as string | undefined,
      seconds
    })
    process.stdout.write(json ? `${JSON.stringify({ token: signed, expires_in: seconds })}\n` : `${signed}\n`)
    return 0
  }
}

export default token
