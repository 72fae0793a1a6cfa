'use strict'
// Talks to the server that it came from and to nobody else; whatever is shown is set as text, never as HTML.

const byId = id => document.getElementById(id)
const number = value => value.toLocaleString('en')
const seconds = value => `${value.toFixed(2)}\u00a0s`
let models = []

function element(name, className, text) {
  const made = document.createElement(name)
  if (className) made.className = className
  if (text !== undefined) made.textContent = text
  return made
}

async function call(path, body) {
  const headers = {}
  if (byId('key').value) headers.Authorization = `Bearer ${byId('key').value}`
  if (body) headers['Content-Type'] = 'application/json'
  let answer
  try {
    answer = await fetch(path, {method: body ? 'POST' : 'GET', headers, body: body && JSON.stringify(body)})
  } catch {
    throw new Error('The server cannot be reached; is it still running?')
  }
  const found = await answer.json().catch(() => ({}))
  if (answer.ok) return found
  if (answer.status === 401) byId('locked').open = true
  throw new Error(found.error ? found.error.message : `The server answered ${answer.status}.`)
}

function choices(id, values, chosen) {
  byId(id).replaceChildren(...values.map(value => new Option(value, value, false, value === chosen)))
}

async function learn() {
  models = (await call('v1/models')).data
  const shared = models[0].latentwire
  choices('ratio', shared.ratios, shared.ratios[0])
  choices('bits', shared.bits, 8)
  const slots = [...new Set(models.flatMap(model => model.latentwire.slots))].sort((one, other) => one - other)
  choices('slots', slots, shared.slots[0])
}

function showPacket(made, text) {
  const sent = new TextEncoder().encode(text).length
  const facts = [
    ['Latents', number(made.latents), `for ${number(made.source_tokens)} tokens`],
    ['Packet', `${number(made.bytes)} bytes`, `text: ${number(sent)} bytes`],
    ['Values', `${made.width} × ${made.bits} bits`, 'of each latent']]
  byId('numbers').replaceChildren(...facts.map(([name, value, more]) => {
    const pair = element('div')
    const shown = element('dd', '', value)
    shown.append(element('small', '', more))
    pair.append(element('dt', '', name), shown)
    return pair
  }))
  const norms = made.norms
  const most = Math.max(...norms)
  const least = Math.min(...norms)
  const figure = byId('norms')
  figure.setAttribute('viewBox', `0 0 ${norms.length} 1`)
  figure.replaceChildren(...norms.map((norm, place) => {
    const bar = document.createElementNS('http://www.w3.org/2000/svg', 'rect')
    const height = norm / (most || 1)
    for (const [name, value] of Object.entries({x: place + 0.1, y: 1 - height, width: 0.8, height})) bar.setAttribute(name, value)
    const title = document.createElementNS('http://www.w3.org/2000/svg', 'title')
    title.textContent = `latent ${place}: ${norm}`
    bar.append(title)
    return bar
  }))
  const says = `Norm of each latent, in their order: ${least.toFixed(2)} to ${most.toFixed(2)}`
  figure.setAttribute('aria-label', says)
  byId('norms-says').textContent = says
  byId('packet').hidden = false
}

function card(model, slots) {
  const made = element('article', 'card')
  made.dataset.model = model.id
  const head = element('h3', '', model.id)
  // a link that was not made for as many slots as were chosen is asked with its own number, and says so
  if (slots !== Number(byId('slots').value)) head.append(element('small', '', ` with ${slots} slots per latent`))
  made.append(head)
  const sides = element('div', 'sides')
  const found = {}
  for (const [name, head] of [['text', 'From the text'], ['latents', 'From the latents']]) {
    const side = element('div', 'side')
    side.dataset.from = name
    const said = element('p', 'said', '…')
    const took = element('p', 'took')
    side.append(element('h4', '', head), said, took)
    sides.append(side)
    found[name] = {said, took}
  }
  const saved = element('p', 'saved')
  saved.hidden = true
  made.append(sides, saved)
  byId('models').append(made)
  return {...found, saved}
}

async function answer(model, messages, more, shown) {
  const begun = performance.now()
  try {
    const given = await call('v1/chat/completions', {model: model.id, messages, ...more})
    const [took] = given.latentwire
    shown.said.textContent = given.choices[0].message.content || '(nothing)'
    shown.took.textContent = `${number(took.prompt_positions)} positions, answered in ${seconds(took.answering_seconds)}, ` +
      `${seconds((performance.now() - begun) / 1000)} in all`
    return took.prompt_positions
  } catch (error) {
    shown.said.textContent = error.message
    shown.said.classList.add('wrong')
    return null
  }
}

async function ask(made, text, question) {
  byId('models').replaceChildren()
  byId('answers').hidden = false
  const chosen = Number(byId('slots').value)
  await Promise.all(models.map(async model => {
    const known = model.latentwire.slots
    const slots = known.includes(chosen) ? chosen : known[0]
    const shown = card(model, slots)
    const fromText = [{role: 'system', content: text}, {role: 'user', content: question}]
    const parts = [{type: 'latent', latent: made.latent}, {type: 'text', text: question}]
    const [whole, short] = await Promise.all([
      answer(model, fromText, {}, shown.text),
      answer(model, [{role: 'user', content: parts}], {slots}, shown.latents)])
    if (whole === null || short === null) return
    const saved = whole - short
    shown.saved.hidden = false
    shown.saved.classList.toggle('more', saved <= 0)
    shown.saved.textContent = saved > 0
      ? `${number(saved)} of ${number(whole)} positions saved (${Math.round(100 * saved / whole)}\u00a0%)`
      : `no positions saved: ${number(short)} instead of ${number(whole)}`
  }))
}

async function go(event) {
  event.preventDefault()
  const text = byId('text').value.trim()
  const question = byId('question').value.trim()
  byId('alert').textContent = ''
  byId('answers').hidden = byId('packet').hidden = true
  byId('go').disabled = true
  try {
    if (!models.length) await learn()
    byId('status').textContent = 'Encoding …'
    const begun = performance.now()
    const body = {input: text, ratio: Number(byId('ratio').value), bits: Number(byId('bits').value), norms: true}
    const made = (await call('v1/latents', body)).data[0]
    const took = seconds((performance.now() - begun) / 1000)
    showPacket(made, text)
    if (question) {
      byId('status').textContent = `Encoded in ${took}. Asking …`
      await ask(made, text, question)
    }
    byId('status').textContent = `Encoded in ${took}.`
  } catch (error) {
    byId('status').textContent = ''
    byId('alert').textContent = error.message
  }
  byId('go').disabled = false
}

byId('form').addEventListener('submit', go)
byId('text').addEventListener('keydown', event => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) byId('form').requestSubmit()
})
// a server that wants a key says so; whoever came to the page is told where to put it
byId('key').addEventListener('change', () => { if (!models.length) learn().catch(() => {}) })
learn().catch(error => { byId('alert').textContent = error.message })
