import { type Command, UsageError } from '../cli.ts'
import { Problems } from '../config/problem.ts'
import type { Snapshot } from '../config/snapshot.ts'
import { validate } from '../config/validate.ts'
import { type Database, openDatabase } from '../database/database.ts'
import { DatabaseError, isDuplicate } from '../database/database-error.ts'
import { loadConfiguration } from '../gateway.ts'
import { createAdministrator, madeUpPassword } from '../identity/administrator.ts'
import { Passwords } from '../identity/password.ts'
import { EMAIL, NEW_PASSWORD, USERNAME } from '../identity/user-view.ts'
import { systemClock } from '../runtime/clock.ts'
import { Type } from '../schema.ts'
import { createLog } from '../telemetry/log.ts'
import { sourcesOf } from './quickstart.ts'

const WANTED = Type.Object({ username: USERNAME, email: EMAIL, password: NEW_PASSWORD })

const admin: Command = {
  summary: 'Makes an administrator: `admin create`',
  argument: 'create',
  options: {
    username: { type: 'string', value: 'name', description: 'What to log in with' },
    email: { type: 'string', value: 'address', description: 'E-mail address, to log in with as well' },
    'password-stdin': {
      type: 'boolean',
      description: 'Read the password from standard input; else one is made up, to be replaced at the first login'
    }
  },
  async run(invocation) {
    const { values, positionals, json } = invocation
    if (positionals[0] !== 'create') throw new UsageError('write "admin create --username … --email …"')
    const given = values['password-stdin'] ? await readPassword() : undefined
    const { username, email, password } = check(values.username, values.email, given ?? madeUpPassword())
    const { snapshot } = await loadConfiguration(sourcesOf(invocation))
    if (!snapshot.identity.local) throw new UsageError('this configuration has no accounts: see identity.local')
    const passwordHash = await new Passwords().hash(password, snapshot.identity.password)
    const database = await open(snapshot)
    try {
      const user = { username, email, passwordHash, mustChangePassword: given === undefined }
      const id = await createAdministrator(database, user, 'command', systemClock.now())
      const made = { id, username, email, ...(given === undefined && { password }) }
      process.stdout.write(
        json
          ? `${JSON.stringify(made)}\n`
          : `${username} may administer the gateway.${given === undefined ? `\npassword  ${password}   to be replaced at the first login; it is kept nowhere` : ''}\n`
      )
      return 0
    } catch (error) {
      if (isDuplicate(error))
        throw new UsageError(`there is a user with the name "${username}" or the address "${email}"`)
      throw error
    } finally {
      await database.close()
    }
  }
}

/** @throws {UsageError} that says what is wrong, and never the password */
function check(
  username: unknown,
  email: unknown,
  password: string
): { username: string; email: string; password: string } {
  const user = { username, email, password }
  for (const name of ['username', 'email'] as const)
    if (typeof user[name] !== 'string') throw new UsageError(`--${name} is missing`)
  const problems = new Problems(user)
  validate(WANTED, user, problems)
  if (problems.failed) throw new UsageError(problems.list.map(({ key, message }) => `${key} ${message}`).join('\n'))
  return user as { username: string; email: string; password: string }
}

/** A line, without what ends it. */
async function readPassword(): Promise<string> {
  let text = ''
  for await (const chunk of process.stdin) text += chunk
  return text.replace(/\r?\n$/, '')
}

/** @throws {UsageError} while a gateway has the file */
async function open({ storage, logging }: Snapshot): Promise<Database> {
  const { logger: log } = await createLog({ ...logging, level: 'silent', format: 'json' })
  try {
    return await openDatabase(storage, { clock: systemClock, log })
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error
    if (error.code !== 'busy') throw new UsageError(error.message)
    throw new UsageError(
      `a gateway is at work on ${storage.data_dir}: stop it for this, or log in there as an administrator and use POST /admin/users`
    )
  }
}

export default admin
