// The keypoints that IMR reads, as dynamicid_core/imr/landmarks.py and motion.py move them; tests hold both to the
// same numbers. Points are [x, y, z]: x right, y down, z towards the viewer. A pose is [pitch, yaw, roll] in degrees.
// A face is what motion.py's `turnable` gives: points in the head's space, where they are in the image, and the driver.

export const EXPRESSIONS = ["neutral", "happy", "sad", "anger", "surprise", "disgust", "fear"]
const NEUTRAL = EXPRESSIONS[0], ANGLES = ["yaw", "pitch", "roll"]
const FRONT = 10, LEVEL = 10 // degrees, within which a face counts as seen from the front, and as level
const LEFT_EYE = 34, RIGHT_EYE = 88, NOSE_END = 80, LEFT_END = 1, RIGHT_END = 17 // of the 106; the contour's ends

/** Return the matrix Rz(roll) Ry(yaw) Rx(pitch), by rows. */
export function rotation([pitch, yaw, roll]) {
    const [[sx, cx], [sy, cy], [sz, cz]] = [pitch, yaw, roll].map((degrees) => {
        const angle = (degrees * Math.PI) / 180
        return [Math.sin(angle), Math.cos(angle)]
    })
    return [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
}

/** Return points of the head's space in pixels of the image, the head being turned to a pose. */
export function outward(face, points, pose) {
    const turn = rotation(pose)
    return points.map((point) => turn.map((row, i) => dot(row, point) * face.scale + face.pivot[i]))
}

/** Return the driver's expression on this face's proportions, both in a head's space. */
export function transferExpression(driver, face) {
    const columns = (points) => [LEFT_END, LEFT_EYE, RIGHT_EYE, RIGHT_END].map((i) => points[i][0])
    const levels = (points) => [(points[LEFT_EYE][1] + points[RIGHT_EYE][1]) / 2, points[NOSE_END][1]]
    const x = [columns(driver), columns(face)], y = [levels(driver), levels(face)]
    return driver.map((point, i) => [stretched(point[0], ...x), stretched(point[1], ...y), face[i][2]])
}

/** Return a value through the piecewise linear map of `knots` to `to`, which goes on straight beyond the ends. */
function stretched(value, knots, to) {
    let i = 0
    while (i < knots.length - 2 && value > knots[i + 1]) i++
    return to[i] + ((value - knots[i]) * (to[i + 1] - to[i])) / (knots[i + 1] - knots[i])
}

/**
 * Return where the head is to look, and its points in the head's space: with the driver's expression, if one drives.
 * `motion`: yaw, pitch and roll beyond the reference's (or the driver's) pose, and the driver's strength.
 */
export function moved(face, { yaw = 0, pitch = 0, roll = 0, strength = 1 }) {
    const driven = strength > 0 ? face.driven : null
    const towards = (from, to) => from + strength * (to - from)
    const pose = driven ? face.pose.map((angle, i) => towards(angle, driven.pose[i])) : face.pose
    const points = driven
        ? face.points.map((point, i) => point.map((value, axis) => towards(value, driven.points[i][axis])))
        : face.points
    return { points, pose: [pose[0] + pitch, pose[1] + yaw, pose[2] + roll] }
}

/** Return the keypoints [x, y] that IMR reads of a motion, in the image squashed to 512 x 512. */
export function targetLandmarks(face, motion) {
    const { points, pose } = moved(face, motion)
    return outward(face, points, pose).map(([x, y]) => [x * face.squash[0], y * face.squash[1]])
}

/**
 * Return points in the head's space with an expression, as a standard face shows it: no part of what IMR reads.
 * `shapes`: the standard face's points by expression; `shares`: of the expressions; `source`: the one that is there.
 */
export function expressed(points, shapes, shares, source = NEUTRAL) {
    const fitted = (name) => transferExpression(shapes[name] ?? shapes[NEUTRAL], points)
    const rest = fitted(source), out = points.map((point) => [...point])
    for (const [name, share] of Object.entries(shares)) {
        const shape = fitted(name)
        out.forEach((point, i) => {
            point[0] += share * (shape[i][0] - rest[i][0])
            point[1] += share * (shape[i][1] - rest[i][1])
        })
    }
    return out
}

/**
 * Return the motions that the node's widgets ask for, one for each person that it makes: yaw, pitch, roll, the
 * driver's strength, the `shares` of expressions (none for words of one's own), or those `words`.
 */
export function targets({ expression, yaw = 0, pitch = 0, roll = 0, prompt = "", driving_strength: strength = 1 }) {
    const turned = (motion) => ({
        ...motion,
        yaw: yaw + (motion.yaw ?? 0),
        pitch: pitch + (motion.pitch ?? 0),
        roll: roll + (motion.roll ?? 0),
        strength,
    })
    const lines = prompt.split(/\r\n|\r|\n/).map((line) => line.trim()).filter(Boolean)
    if (lines.length) return lines.map((line) => turned(written(line) ?? { shares: {}, words: line }))
    return (expression === "all" ? EXPRESSIONS : [expression]).map((name) => turned({ shares: { [name]: 1 } }))
}

const TERM = /^([\p{L}_][\p{L}\p{N}_]*)(?:\s+([+-]?(?:\d+\.?\d*|\.\d+)))?$/u

/** Return the motion that a text asks for by numbers, such as `happy 0.7, yaw 20`; null where it is free words. */
export function written(text) {
    const terms = text.split(",").map((part) => part.trim().match(TERM))
    if (!terms.every(Boolean) || !terms.some((term) => term[2])) return null
    const amounts = Object.fromEntries(terms.map(([, name, number]) => [name.toLowerCase(), Number(number ?? 1)]))
    if (!Object.keys(amounts).every((name) => EXPRESSIONS.includes(name) || ANGLES.includes(name))) return null
    const shares = Object.fromEntries(
        Object.entries(amounts).filter(([name, amount]) => EXPRESSIONS.includes(name) && name !== NEUTRAL && amount)
    )
    const rest = 1 - Object.values(shares).reduce((sum, share) => sum + share, 0)
    const angles = Object.fromEntries(ANGLES.map((name) => [name, amounts[name] ?? 0]))
    return { ...angles, shares: Math.abs(rest) < 1e-9 ? shares : { [NEUTRAL]: rest, ...shares } }
}

/** Return the words that the text encoder reads of a motion; of a mixture, as the preview tells of it. */
export function facePrompt({ shares, words }, [pitch, yaw]) {
    if (words) return words
    const names = Object.entries(shares)
    const whole = names.length === 1 && names[0][1] === 1
    const mixture = names.map(([name, share]) => `${Number(share.toPrecision(2))} ${name}`).join(" + ")
    const tilt = pitch > LEVEL ? "facing up, " : pitch < -LEVEL ? "facing down, " : ""
    const view = Math.abs(yaw) < FRONT ? "in front view" : "in side view"
    return `in a ${whole ? names[0][0] : mixture} expression, ${tilt}${view}`
}

function dot(a, b) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}
