/**
 * Several processes' metrics as one, in Prometheus' text format: a family has to be in one piece. Their series have to differ in
 * a label.
 */
export function mergeExpositions(texts: readonly string[]): string {
  const families = new Map<string, { head: string; samples: string[] }>()
  for (const text of texts) {
    for (const block of text.split(/^(?=# HELP )/m)) {
      const [, name = ''] = /^# HELP (\S+)/.exec(block) ?? []
      const lines = block.split('\n').filter(line => line !== '')
      const samples = lines.filter(line => !line.startsWith('#'))
      const known = families.get(name)
      if (known === undefined)
        families.set(name, { head: lines.filter(line => line.startsWith('#')).join('\n'), samples })
      else for (const sample of samples) known.samples.push(sample)
    }
  }
  return `${[...families.values()].map(({ head, samples }) => [head, ...samples].join('\n')).join('\n\n')}\n`
}

interface Metric {
  readonly name: string
  readonly values: readonly unknown[]
}

/** The same for lists of metrics with their values. */
export function mergeMetrics<M extends Metric>(lists: readonly (readonly M[])[]): M[] {
  const merged = new Map<string, M>()
  for (const metric of lists.flat()) {
    const known = merged.get(metric.name)
    merged.set(metric.name, known === undefined ? metric : { ...known, values: [...known.values, ...metric.values] })
  }
  return [...merged.values()]
}

/** Totals of requests. */
export interface Summary {
  readonly count: number
  readonly duration_seconds: number
  readonly active: number
  readonly status_codes: Readonly<Record<string, number>>
}

/** The totals of several processes together. */
export function addSummaries(a: Summary, b: Summary): Summary {
  const status_codes: Record<string, number> = { ...a.status_codes }
  for (const [status, count] of Object.entries(b.status_codes))
    status_codes[status] = (status_codes[status] ?? 0) + count
  return {
    count: a.count + b.count,
    duration_seconds: a.duration_seconds + b.duration_seconds,
    active: a.active + b.active,
    status_codes
  }
}
