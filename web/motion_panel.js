// The panel of Edit Facial Motion: the keypoints that IMR reads, as the node's widgets move them, without queueing.
// It is no input: it has no value, and nothing of it is saved with a graph.

import { app } from "../../scripts/app.js"
import { expressed, facePrompt, moved, outward, targets } from "./keypoints.js"
import { STANDARD_FACE } from "./standard_face.js"

const NODE = "DynamicIDEditMotion", HEIGHT = 170, MARGIN = 10 // pixels; the classic canvas's about an element
const WIDGETS = ["expression", "yaw", "pitch", "roll", "prompt", "source_expression", "driving_strength"]
const DRIVERS = ["driving_image", "landmarks"]
const COLORS = ["#eb5757", "#569cd6", "#6fcf97", "#f2c94c", "#bb6bd9", "#f2994a"] // of the previews
const PAPER = "#26262c", GRAY = "#8c8c92"
const VIEW = { left: -1.35, top: -1.4, width: 2.7, height: 2.25 } // of the head's space about its pivot
const TEXTS = {
    en: "a standard face: this person's is shown after a run",
    zh: "标准面孔：运行后显示此人的面孔",
    ja: "標準の顔：実行後にこの人物の顔を表示",
}
const LINES = [
    [1, 9, 10, 11, 12, 13, 14, 15, 16, 2, 3, 4, 5, 6, 7, 8, 0, 24, 23, 22, 21, 20, 19, 18, 32, 31, 30, 29, 28, 27, 26, 25, 17],
    [43, 48, 49, 51, 50, 46, 47, 45, 44, 43], [97, 102, 103, 104, 105, 101, 100, 99, 98, 97],
    [35, 41, 40, 42, 39, 37, 33, 36, 35], [89, 95, 94, 96, 93, 91, 87, 90, 89],
    [72, 73, 74, 86], [77, 78, 79, 80, 85, 84, 83],
    [52, 64, 63, 71, 67, 68, 61, 58, 59, 53, 56, 55, 52], [65, 66, 62, 70, 69, 57, 60, 54, 65],
]

/** What nodes told, by tab, graph and node, as long as the page is open: undo makes all nodes of a graph anew. */
const told = new Map()

/** One node's panel. `redraws` counts; `shown` is what it drew last: the targets' keypoints, words, whose face. */
class MotionPanel {
    constructor(node) {
        this.node = node
        this.redraws = 0
        this.element = document.createElement("div")
        this.element.className = "dynamicid-motion"
        Object.assign(this.element.style, { position: "relative", width: "100%", minHeight: `${HEIGHT}px` })
        this.canvas = document.createElement("canvas")
        Object.assign(this.canvas.style, { position: "absolute", inset: "0", width: "100%", height: "100%" })
        this.element.append(this.canvas)
        this.element.addEventListener("wheel", (event) => {
            // On the classic canvas, an element above it would keep the wheel from zooming.
            if (!globalThis.LiteGraph?.vueNodesMode) app.canvas.processMouseWheel(event)
        })
    }

    /** Return what the last run told: the node's face and the inputs that it got; nothing before. */
    get ran() {
        return this.told ?? told.get(this.place) ?? {}
    }

    set ran(output) {
        this.told = output?.dynamicid_motion?.[0]
        told.set(this.place, this.told)
    }

    get place() {
        const tab = app.extensionManager?.workflow?.activeWorkflow?.path // a template loaded again is another one
        return [tab, this.node.graph?.id, this.node.id].join()
    }

    isLinked(name) {
        return this.node.inputs?.find((input) => input.name === name)?.link != null
    }

    /** Return the node's inputs: widgets as they are now, and what is connected as it last ran. */
    inputs() {
        const ran = this.ran.inputs ?? {}, values = {}
        for (const { name, value } of this.node.widgets ?? [])
            if (WIDGETS.includes(name)) values[name] = this.isLinked(name) ? (ran[name] ?? value) : value
        return values
    }

    /** Take the place of the panel of the node before an undo, which Nodes 2.0 leave in the page. */
    takePlace() {
        if (this.node.graph !== app.canvas.graph) return // another graph's node may have this one's id
        document.querySelector(`[data-node-id="${this.node.id}"] .${this.element.className}`)?.replaceWith(this.element)
    }

    /** Draw, if anything has changed since it was last drawn and can be seen. */
    refresh() {
        if (!this.element.isConnected) this.takePlace()
        const { clientWidth: width, clientHeight: height } = this.element
        if (!this.element.isConnected || !width || !height) return
        const inputs = this.inputs(), { face, shown } = this.ran, driven = DRIVERS.some((name) => this.isLinked(name))
        if (inputs.source_expression === "auto") inputs.source_expression = shown || "neutral"
        const key = JSON.stringify([inputs, width, height, driven, devicePixelRatio])
        if (key === this.key && face === this.face) return
        this.key = key
        this.face = face
        this.draw(face && !driven ? { ...face, driven: null } : (face ?? STANDARD_FACE), inputs, width, height)
        this.redraws++
    }

    draw(face, inputs, width, height) {
        const ratio = 2 * devicePixelRatio // sharp where the graph is enlarged
        this.canvas.width = width * ratio
        this.canvas.height = height * ratio
        const context = this.canvas.getContext("2d"), motions = targets(inputs)
        context.scale(ratio, ratio)
        context.fillStyle = PAPER
        context.fillRect(0, 0, width, height)
        this.shown = motions.map((motion) => ({ ...moved(face, motion), motion }))
        const columns = columnsFor(motions.length, width, height), rows = Math.ceil(motions.length / columns)
        this.shown.forEach((target, i) => {
            const cell = { x: ((i % columns) * width) / columns, y: (Math.floor(i / columns) * height) / rows,
                           width: width / columns, height: height / rows }
            target.words = facePrompt(target.motion, target.pose)
            target.landmarks = outward(face, target.points, target.pose)
            drawTarget(context, cell, face, target, inputs.source_expression, COLORS[i % COLORS.length])
        })
        if (face === STANDARD_FACE) write(context, TEXTS[language()] ?? TEXTS.en, 6, 12, width - 12, GRAY)
        this.shown.own = face !== STANDARD_FACE
    }
}

/** Draw one person: the reference's keypoints gray, the wanted ones colored, and lines that show the expression. */
function drawTarget(context, cell, face, { points, pose, landmarks, motion, words }, source, color) {
    const room = { x: cell.x, y: cell.y + 12, width: cell.width, height: cell.height - 28 }
    const scale = Math.min(room.width / VIEW.width, room.height / VIEW.height) / face.scale
    const left = room.x + room.width / 2 - (VIEW.left + VIEW.width / 2) * face.scale * scale
    const top = room.y + room.height / 2 - (VIEW.top + VIEW.height / 2) * face.scale * scale
    const place = ([x, y]) => [left + (x - face.pivot[0]) * scale, top + (y - face.pivot[1]) * scale]
    dots(context, outward(face, face.points, face.pose).map(place), GRAY, 0.8)
    const shape = expressed(points, STANDARD_FACE.shapes, motion.shares ?? {}, source)
    const drawn = outward(face, shape, pose).map(place)
    context.strokeStyle = color
    context.globalAlpha = 0.75
    context.beginPath()
    for (const line of LINES) line.forEach((i, n) => (n ? context.lineTo(...drawn[i]) : context.moveTo(...drawn[i])))
    context.stroke()
    context.globalAlpha = 1
    dots(context, landmarks.map(place), color, 1.3)
    write(context, words, cell.x + 6, cell.y + cell.height - 6, cell.width - 12, color)
}

function dots(context, points, color, radius) {
    context.fillStyle = color
    for (const [x, y] of points) context.fillRect(x - radius, y - radius, 2 * radius, 2 * radius)
}

/** Write a text on one line, cut to its room. */
function write(context, text, x, y, room, color) {
    context.font = "10px sans-serif"
    context.fillStyle = color
    let end = text.length
    while (end > 1 && context.measureText(text.slice(0, end) + "…").width > room) end--
    context.fillText(context.measureText(text).width > room ? text.slice(0, end) + "…" : text, x, y)
}

/** Return in how many columns people are the largest. */
function columnsFor(count, width, height) {
    const size = (columns) => Math.min(width / columns, height / Math.ceil(count / columns))
    const all = Array.from({ length: count }, (_, i) => i + 1)
    return all.reduce((best, columns) => (size(columns) > size(best) ? columns : best), 1)
}

function language() {
    return String(app.extensionManager?.setting?.get("Comfy.Locale") ?? "en").slice(0, 2)
}

const panels = new Set()

/** Look at each panel's widgets before each frame: both kinds of nodes change them, and each tells of it otherwise. */
function watch() {
    for (const panel of panels) panel.refresh()
    if (panels.size) requestAnimationFrame(watch)
}

app.registerExtension({
    name: "dynamicid.motion_panel",
    nodeCreated(node) {
        if (node.comfyClass !== NODE) return
        const panel = new MotionPanel(node)
        const widget = node.addDOMWidget("motion_panel", "dynamicid_motion", panel.element, {
            serialize: false, // not in what is queued
            getMinHeight: () => HEIGHT + 2 * MARGIN,
        })
        widget.serialize = false // not in what is saved
        node.dynamicidPanel = panel
        const { onExecuted, onRemoved } = node
        node.onExecuted = function (output) {
            onExecuted?.apply(this, arguments)
            panel.ran = output
        }
        node.onRemoved = function () {
            onRemoved?.apply(this, arguments)
            panels.delete(panel)
        }
        panels.add(panel)
        if (panels.size === 1) requestAnimationFrame(watch)
    },
})
