import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ConfigError, type Problem, whereIs } from '../../../src/config/problem.ts'
import { checkConfiguration } from '../../../src/gateway.ts'
import { GOOD, GREETING, TYPOS, withTypo } from '../../support/typos.ts'

const ENV = { ORDERS_URL: 'http://127.0.0.1:4100', TYPO_SECRET: 'a secret of the tests, long enough to be one' }

t.test('CFG-08 H-120 each of forty slips is refused with its place, its key and the nearest fix', async t => {
  const folder = t.testdir({ 'greeting.ts': GREETING })
  const file = join(folder, 'gateway.yaml')
  const data = ['storage.data_dir', join(folder, 'data'), 'test'] as const
  const check = async (text: string): Promise<readonly Problem[]> => {
    writeFileSync(file, text)
    try {
      await checkConfiguration({ files: [file], env: ENV, overrides: [data] })
      return []
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      return error.problems
    }
  }
  t.same(await check(GOOD), [])
  t.ok(TYPOS.length >= 40)
  for (const typo of TYPOS) {
    const problems = await check(withTypo(typo))
    const [problem] = problems.filter(({ severity }) => severity === 'error')
    const { at, key, message } = typo
    t.match(
      { at: whereIs(problem ?? {}).split('gateway.yaml:')[1], key: problem?.key, message: problem?.message },
      { at, key, message },
      typo.name
    )
  }
})
