const { join } = require('node:path')

// Cluster mode is the gateway's own (`--workers`): PM2's would know nothing of its reloads, and show one worker's metrics at a time.
// Several workers need PostgreSQL and Redis: DATABASE_URL and REDIS_URL; without them WORKERS=1.
module.exports = {
  apps: [
    {
      name: 'api-gateway',
      script: join(__dirname, '..', 'dist', 'src', 'main.js'),
      args: ['start', '-c', process.env.SALLYPORT_CONFIG || join(__dirname, 'gateway.yaml')],
      exec_mode: 'fork',
      node_args: ['--max-semi-space-size=16'],
      env: { NODE_ENV: 'production', ENVIRONMENT: 'production', WORKERS: process.env.WORKERS || 'auto' },
      kill_timeout: 40_000,
      max_memory_restart: '512M'
    }
  ]
}
