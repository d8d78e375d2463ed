import { counting, median, QUIET, type Window } from './figures.ts'
import type { Measured } from './measure.ts'

/** A promise, what was found, and whether it was kept. */
export interface Bar {
  readonly what: string
  /** `<= 0.85`. */
  readonly bar: string
  /** What we go for beyond it; '' for nothing. */
  readonly aim?: string
  readonly figure: string
  readonly met: boolean
}

export interface Table {
  readonly title: string
  readonly head: readonly string[]
  readonly rows: readonly (readonly string[])[]
}

/** What a section has to say. */
export interface Findings {
  readonly title: string
  readonly bars: readonly Bar[]
  readonly tables: readonly Table[]
  /** Sentences: what was skipped and why, and how to read the figures. */
  readonly notes: readonly string[]
  /** Every window measured, for the account of how quiet the machine was. */
  readonly windows: readonly Window[]
}

/** A bar from above. @param value not a number when it could not be measured, which is not met */
export function atMost(
  what: string,
  value: number,
  bar: number,
  { unit = '', digits = 2, aim, note }: { unit?: string; digits?: number; aim?: number; note?: string } = {}
): Bar {
  return {
    what,
    bar: `<= ${bar}${unit}`,
    ...(aim === undefined ? {} : { aim: `${aim}${unit}` }),
    figure: `${value.toFixed(digits)}${unit}${note === undefined ? '' : ` (${note})`}`,
    met: value <= bar
  }
}

/** A bar from below. */
export function atLeast(what: string, value: number, bar: number, unit: string): Bar {
  return { what, bar: `>= ${bar}${unit}`, figure: `${value.toFixed(0)}${unit}`, met: value >= bar }
}

/** The windows of several contenders, cheapest first, each beside the same rounds of `base`. */
export function windowTable(
  title: string,
  measured: Measured,
  titles: ReadonlyMap<string, string>,
  base: string,
  ratioOf: (a: readonly Window[], b: readonly Window[]) => number
): Table {
  const reference = measured.get(base)
  const rows = [...measured].map(([name, windows]) => ({ name, windows, min: Math.min(...windows.map(w => w.us)) }))
  const cell = (value: number, digits: number) => (Number.isNaN(value) ? '-' : value.toFixed(digits))
  return {
    title,
    head: [
      'contender',
      'CPU us/req, min',
      'median',
      'max',
      'user/sys',
      reference === undefined ? 'ratio' : `x ${titles.get(base) ?? base}`,
      'req/s, best',
      'p50 / p99 ms, best',
      'RSS MB',
      'windows (quiet)',
      'errors'
    ],
    rows: rows
      .toSorted((a, b) => a.min - b.min)
      .map(({ name, windows, min }) => {
        const used = counting(windows)
        const of = (figure: (window: Window) => number) => median(used.map(figure))
        const best = windows.toSorted((a, b) => b.perSecond - a.perSecond)[0] as Window
        return [
          titles.get(name) ?? name,
          `**${min.toFixed(1)}**`,
          of(w => w.us).toFixed(1),
          Math.max(...used.map(w => w.us)).toFixed(1),
          `${of(w => w.user).toFixed(0)}/${of(w => w.system).toFixed(0)}`,
          reference === undefined ? '-' : ratioOf(windows, reference).toFixed(2),
          best.perSecond.toFixed(0),
          `${cell(best.p50, 2)} / ${cell(best.p99, 1)}`,
          Math.max(...windows.map(w => w.rss)).toFixed(0),
          `${windows.length} (${windows.filter(w => w.foreign < QUIET).length})`,
          String(windows.reduce((sum, w) => sum + w.errors, 0))
        ]
      })
  }
}

/** All findings as a page of markdown. @param heading lines about the machine */
export function page(findings: readonly Findings[], heading: readonly string[]): string {
  const bars = findings.flatMap(({ title, bars }) => bars.map(bar => ({ ...bar, section: title })))
  const met = bars.filter(bar => bar.met).length
  const lines = [
    '# What was measured',
    '',
    ...heading,
    '',
    ...state(findings.flatMap(({ windows }) => windows)),
    '',
    `## The bars: ${met} of ${bars.length} met`,
    '',
    ...tableLines(
      ['', 'bar', 'aim', 'figure', 'met'],
      bars.map(({ what, bar, aim, figure, met }) => [what, bar, aim ?? '', figure, met ? 'met' : '**not met**'])
    )
  ]
  for (const { title, tables, notes } of findings) {
    lines.push('', `## ${title}`)
    for (const table of tables) lines.push('', `### ${table.title}`, '', ...tableLines(table.head, table.rows))
    if (notes.length > 0) lines.push('', ...notes.map(note => `- ${note}`))
  }
  return `${lines.join('\n')}\n`
}

/** How much others had of the machine: what the figures are worth. */
function state(windows: readonly Window[]): string[] {
  if (windows.length === 0) return []
  const quiet = windows.filter(({ foreign }) => foreign < QUIET).length
  const others = median(windows.map(({ foreign }) => foreign))
  const words = `${quiet} of ${windows.length} windows were quiet (others took less than ${QUIET} of a core); the median of what others took is ${others.toFixed(2)} of a core.`
  return quiet * 4 >= windows.length * 3
    ? [words]
    : [
        `**Preliminary: the machine was busy with other work.** ${words} Ratios are worth something, microseconds little.`
      ]
}

function tableLines(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)]
}
