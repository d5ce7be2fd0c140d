// Light, dark, or as the system has it.
import { keep, read } from './kept.js'

const PLACE = 'localStorage'
const KEY = 'madmail-theme'

export const theme = $state({ name: read(PLACE, KEY) })

export function paint(name = theme.name) {
  theme.name = ['light', 'dark'].includes(name) ? name : 'auto'
  document.documentElement.dataset.theme = theme.name
  keep(PLACE, KEY, theme.name)
}
