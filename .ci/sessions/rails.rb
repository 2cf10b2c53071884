# An app whose sessions end 10 s after the last request that does not renew a stream. Its arguments are an address, a
# port and the root directory of the app. The test puts code of cmd/rowcast/README.md in place of the comment README.

require "action_controller/railtie"
require "webrick"
require "rack/handler/webrick"

HOST, PORT, DIRECTORY = ARGV

class App < Rails::Application
  config.load_defaults 6.1
  config.root = DIRECTORY
  config.eager_load = false
  config.hosts.clear
  config.secret_key_base = "a key for a test"
  config.logger = Logger.new(nil)
  config.action_controller.default_protect_from_forgery = false
  config.cache_store = :memory_store
  config.session_store :cache_store, key: "_app_session", expire_after: 10
end

class SessionsController < ActionController::Base
# README

  def login
    session[:user] = 42
    head :no_content
  end

  def page
    render plain: current_user ? "signed in" : "signed out"
  end

  private

  User = Struct.new(:id)

  def current_user
    User.new(session[:user]) if session[:user]
  end
end

App.initialize!
App.routes.draw do
  root "sessions#page"
  post "login", to: "sessions#login"
  get "rowcast/auth", to: "sessions#rowcast_auth"
end

Rack::Handler::WEBrick.run(App, Host: HOST, Port: PORT.to_i, AccessLog: [], Logger: WEBrick::Log.new(nil, 0))
