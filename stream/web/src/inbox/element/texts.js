// The texts of the element.

import { MANY } from "../many.js";
import { findOutward } from "./dom.js";

/** The texts by language. {n} stands for the number. */
export const STRINGS = {
  en: {
    title: "Notifications",
    bell: { other: "Notifications, {n} new" },
    many: "more than 99",
    new: { one: "{n} new notification", other: "{n} new notifications" },
    readAll: "Mark all as read",
    read: "Mark as read",
    unread: "Mark as unread",
    archive: "Archive",
    archived: "Archived",
    allRead: "All marked as read",
    undo: "Undo",
    more: "Load more",
    close: "Close",
    retry: "Try again",
    empty: "You are all caught up",
    emptyHint: "New notifications appear here.",
    loading: "Loading…",
    offline: "Reconnecting…",
    delayed: "Notifications may arrive late",
    signedOut: "You are signed out",
    failed: "Notifications cannot be loaded",
    unsaved: "The change could not be saved",
    tooLarge: "This notification is too large to be shown",
  },
  zh: {
    title: "通知",
    bell: { other: "通知，{n} 条新消息" },
    many: "超过 99",
    new: { other: "{n} 条新通知" },
    readAll: "全部标为已读",
    read: "标为已读",
    unread: "标为未读",
    archive: "归档",
    archived: "已归档",
    allRead: "已全部标为已读",
    undo: "撤销",
    more: "加载更多",
    close: "关闭",
    retry: "重试",
    empty: "没有新通知",
    emptyHint: "新的通知会显示在这里。",
    loading: "正在加载…",
    offline: "正在重新连接…",
    delayed: "通知可能会延迟",
    signedOut: "您已退出登录",
    failed: "无法加载通知",
    unsaved: "无法保存更改",
    tooLarge: "此通知太大，无法显示",
  },
};

/** Returns the language of the texts and times of an element: the language of the element, or else of the browser. If there is no
 * dictionary for this language, it is English. */
export function languageOf(element, dictionaries) {
  const wanted = findOutward(element, (inner) => inner.closest("[lang]"))?.getAttribute("lang") || navigator.language;
  try {
    const [lang] = Intl.getCanonicalLocales(wanted);
    return dictionaryOf(dictionaries, lang) ? lang : "en";
  } catch {
    return "en";
  }
}

const dictionaryOf = (dictionaries, lang) => dictionaries[lang] ?? dictionaries[lang.split("-")[0]];

/** Reports whether a value is a text, or an object with the forms of a text. */
export const isText = (value) => typeof value === "string" || (typeof value?.other === "string" && Object.values(value).every((form) => typeof form === "string"));

/** Returns the value of a key. The page's own texts replace the texts of the dictionaries. A value that is not a text is ignored. */
const valueOf = (own, dictionaries, lang, key) => [own[key], dictionaryOf(dictionaries, lang)?.[key]].find(isText) ?? STRINGS.en[key];

/** Returns the language and all values as one text, so that they can be compared. */
export const allTexts = (own, dictionaries, lang) => JSON.stringify([lang, ...Object.keys(STRINGS.en).map((key) => valueOf(own, dictionaries, lang, key))]);

/** Returns the text of a key, with a number. */
export function translate(own, dictionaries, lang, key, n) {
  const value = valueOf(own, dictionaries, lang, key);
  const form = typeof value === "string" ? value : (value[new Intl.PluralRules(lang).select(n)] ?? value.other);
  return n === undefined ? form : form.replace("{n}", n >= MANY ? translate(own, dictionaries, lang, "many") : new Intl.NumberFormat(lang).format(n));
}
