import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { needProgram } from '../tools.ts'
import { CONNECTIONS, type Contender } from './contender.ts'

export const caddy: Contender = {
  name: 'caddy',
  title: 'Caddy, plain',
  policies: 'none',
  missing: () => needProgram('caddy'),
  command({ folder, port, upstream }) {
    const file = join(folder, 'Caddyfile')
    writeFileSync(
      file,
      `{
	admin off
	auto_https off
}
http://127.0.0.1:${port} {
	reverse_proxy 127.0.0.1:${upstream} {
		transport http {
			keepalive_idle_conns_per_host ${CONNECTIONS}
		}
	}
}
`
    )
    return ['caddy', 'run', '--config', file, '--adapter', 'caddyfile']
  }
}
